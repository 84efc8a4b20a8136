// SPDX-License-Identifier: Apache-2.0
// Folders whose files are named by a step of training: "ckpt-00001200.h5", "step-00001200.h5".
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace dekoder {

/// "<prefix><step>.h5", the step in 8 digits or more: "step-", 1200 -> "step-00001200.h5".
std::string step_file_name(std::string_view prefix, long step);

/// Step in the name of a file, or -1 where it is not as step_file_name makes it.
long step_of_file(const std::filesystem::path& file, std::string_view prefix);

/// Files of that name in `folder`, newest step first; empty where there is no such folder. Throws ReadError where
/// the folder cannot be listed.
std::vector<std::filesystem::path> list_step_files(const std::filesystem::path& folder, std::string_view prefix);

/// Whether a file is by its name one that a writer has not finished: a PendingFile, or ".<prefix><step>.h5.tmp" of
/// older programs.
bool is_unfinished_step_file(const std::filesystem::path& file, std::string_view prefix);

/// Removes those, which a writer that died has left. Call with the run directory locked.
void remove_left_over(const std::filesystem::path& folder, std::string_view prefix);

}  // namespace dekoder
