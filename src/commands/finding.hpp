// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace dekoder {

/// What a check of the self test says on one rank: figures, or why it failed.
struct Finding {
  bool failed = false;
  std::string text;
};

}  // namespace dekoder
