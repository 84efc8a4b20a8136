// SPDX-License-Identifier: Apache-2.0
// Which checkpoint of a folder a restart uses, and which ones are kept.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/run/checkpoint.hpp"

namespace dekoder {

/// Files named ckpt-<step>.h5 in `folder`, newest step first; empty where there is no such folder. Throws ReadError
/// where it cannot be listed.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& folder);

/// Step in the name of a file of list_checkpoints.
long checkpoint_step(const std::filesystem::path& file);

/// A file that could not be used, and why.
struct RejectedCheckpoint {
  std::filesystem::path file;
  std::string reason;
};

struct LoadedCheckpoint {
  std::filesystem::path file;
  CheckpointInfo info;
  std::vector<RejectedCheckpoint> rejected;  ///< newer ones, newest first
};

/// Reads what the caller wants of a file: read_checkpoint_info, read_checkpoint, ... A DataError says that the file
/// is of no use, so that an older one is tried; any other error ends the search and changes nothing, and so do
/// NewerFormatError and ReadError, which say that nothing is wrong with the file.
using ReadCheckpoint = std::function<CheckpointInfo(const std::filesystem::path&)>;

/// The newest file that `read` takes, for a restart. Each newer one is logged with its reason and, once one is
/// taken, renamed to <name>.corrupt. Left-over temporary files of a dead writer are removed: call with the run
/// directory locked. Returns nothing where there are no checkpoint files. Throws DataError naming each file with
/// its reason where there are files but none is taken.
std::optional<LoadedCheckpoint> restart_checkpoint(const std::filesystem::path& folder, const ReadCheckpoint& read);

/// The same for those who only look: changes nothing on the disk, and looks again where a run that goes on has
/// deleted files meanwhile. Throws DataError also where there is no file.
LoadedCheckpoint newest_checkpoint(const std::filesystem::path& folder, const ReadCheckpoint& read);

/// Whether rotation leaves each of `files`, newest step first (list_checkpoints), as rotate_checkpoints says.
std::vector<bool> kept_checkpoints(const std::vector<std::filesystem::path>& files, int keep, long best_step,
                                   long superseded_step);

/// Deletes all but the newest `keep` (at least 1) files and that of `best_step`. That of `superseded_step`, which
/// only a stop asked for, does not count and goes once there is a newer one: a run that was stopped keeps the files
/// of one that was not. -1: no such step. Call after write_checkpoint, which has verified the newest. A file that
/// cannot be deleted is a warning.
void rotate_checkpoints(const std::filesystem::path& folder, int keep, long best_step, long superseded_step);

}  // namespace dekoder
