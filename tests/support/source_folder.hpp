// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <filesystem>

namespace dekoder::testing_support {

/// The checkout, or a folder with a copy of what the tests read of it (jobs/bundle): the environment's
/// DEKODER_SOURCE_DIR, else the checkout that the tests were built from.
inline std::filesystem::path source_folder() {
  const char* elsewhere = std::getenv("DEKODER_SOURCE_DIR");
  return elsewhere != nullptr ? elsewhere : DEKODER_SOURCE_DIR;
}

}  // namespace dekoder::testing_support
