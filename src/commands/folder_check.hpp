// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

namespace dekoder {

/// What a run does with its folder, done once with 64 MiB: the lock, an HDF5 file that is synced, read back and
/// renamed, once more over the one that is there. Returns the kind of file system, what is free, seconds and rates.
/// Leaves nothing behind. Throws DataError or ConfigError naming what does not work.
std::string check_folder(const std::filesystem::path& folder);

}  // namespace dekoder
