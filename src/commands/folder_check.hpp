// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

#include "parallel/communicator.hpp"

namespace dekoder {

/// What a run does with its folder, done once on rank 0 with 64 MiB: the lock, which all ranks look for, an HDF5
/// file that is synced, read back and renamed, once more over the one that is there. Returns there the kind of file
/// system, what is free, seconds and rates. Leaves nothing behind, and removes what killed self tests have left.
/// Throws DataError or ConfigError naming what does not work; where that is rank 0's, ElsewhereError on the others.
std::string check_folder(const std::filesystem::path& folder, const Communicator& ranks);

}  // namespace dekoder
