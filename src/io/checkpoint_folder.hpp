// SPDX-License-Identifier: Apache-2.0
// Which checkpoint of a folder a restart uses, and which ones are kept.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"

namespace dekoder {

/// Files named ckpt-<step>.h5 in `folder`, newest step first; empty where there is no such folder.
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

/// Loads the newest valid state into the store and the moments. Each newer file that is damaged is logged with its
/// reason and, once a valid one is found, renamed to <name>.corrupt. Left-over temporary files of a dead writer are
/// removed: call with the run directory locked. Returns nothing, and changes nothing, where there are no checkpoint
/// files. Throws DataError naming each file with its reason where there are files but none is valid; ConfigError
/// and NewerFormatError as read_checkpoint.
std::optional<LoadedCheckpoint> load_newest_checkpoint(const std::filesystem::path& folder,
                                                       const ParameterStore& store, const Tensor1& first_moment,
                                                       const Tensor1& second_moment);

/// The newest valid file for evaluation and generation, parameters only; changes nothing on the disk. Throws
/// DataError where there is none.
LoadedCheckpoint load_newest_parameters(const std::filesystem::path& folder, const ParameterStore& store);

/// The newest file whose fields are intact, to learn the configuration from before a model exists; no tensor is
/// read. Throws DataError where there is none.
LoadedCheckpoint newest_checkpoint_info(const std::filesystem::path& folder);

/// Deletes all but the newest `keep` (at least 1) files, that of `best_step`, and that of `resumed_step` as long as
/// fewer than two newer ones exist; -1: no such step. Call after write_checkpoint, which has verified the newest. A
/// file that cannot be deleted is a warning.
void rotate_checkpoints(const std::filesystem::path& folder, int keep, long best_step, long resumed_step);

}  // namespace dekoder
