// SPDX-License-Identifier: Apache-2.0
// The files of a run, moved out of the way of a new one.
#pragma once

#include <filesystem>
#include <vector>

namespace dekoder {

/// Moves those of `entries` (files and folders of the run directory `root`) that are there, and no empty folders,
/// into root/previous-<n>, n the first number that is free, and returns that folder; an empty path where there was
/// nothing to move. Where an entry is a link, the link stays for the new run, and what it led to stays on its disk:
/// a file is renamed to <file>.previous-<n>, the files of a folder go into <folder>/previous-<n>, and
/// root/previous-<n> holds a link to them.
///
/// All or nothing: the files are gathered in root/.previous-<n>.tmp, and one rename makes that previous-<n>. After
/// a failure they are moved back, after a crash by undo_interrupted_move. Throws SaveError with the system's
/// reason.
std::filesystem::path move_to_previous(const std::filesystem::path& root,
                                       const std::vector<std::filesystem::path>& entries);

/// Moves back, with a log line, what a process that died in move_to_previous had gathered; also after a crash of
/// its own. Call with the run directory locked. Throws SaveError naming the files where others are in their places.
void undo_interrupted_move(const std::filesystem::path& root);

}  // namespace dekoder
