// SPDX-License-Identifier: Apache-2.0
// The folder attention/ of a run directory: one file per captured step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <span>

#include "io/run/attention_file.hpp"

namespace dekoder {

/// Name of the file of a step: "step-00001200.h5".
std::string attention_file_name(long step);

/// What a start that goes on from `kept_step`, -1: anew, finds of the run's own files; changes nothing.
struct KeptAttention {
  std::set<long> steps;     ///< those with the probes, layers, heads and statistics of the info, if none is damaged
  std::uint64_t bytes = 0;  ///< of all files that stay
};
/// Throws ConfigError where something else is in the place of the folder.
KeptAttention kept_attention(const std::filesystem::path& folder, AttentionFileInfo info, long kept_step);

/// Writer of the folder: one per run, by the holder of the run directory.
class AttentionFolder {
 public:
  /// Goes on with the files in `folder`, or where a symbolic link there leads; it is made by the first write. Files
  /// of this run for steps after `kept_step` belong to a future that a restart repeats: they are removed; -1: all.
  /// The others are read; one that is damaged or of another run is renamed to <name>.aside-<n> with a warning.
  /// Files of other probes, layers, heads or statistics stay as they are: each says what it holds. Throws
  /// ConfigError, with nothing changed, where something else is in the place of the folder, or a link whose target
  /// cannot be made; SaveError where a file cannot be removed or renamed, ReadError where one cannot be read at the
  /// moment, which is no damage; ShapeError as as_written.
  AttentionFolder(const std::filesystem::path& folder, AttentionFileInfo info, long kept_step);

  /// Whether the step's file is there, with the probes, layers, heads and statistics of the info.
  bool has(long step) const { return steps_.contains(step); }
  const std::set<long>& steps() const { return steps_; }

  /// Writes the file of a step that the folder does not have, as write_attention_file. A file of other probes under
  /// its name is renamed to <name>.aside-<n> with a warning.
  void write(long step, std::span<const AttentionMaps> one_per_probe);

 private:
  std::filesystem::path folder_;
  AttentionFileInfo info_;
  std::set<long> steps_;
};

}  // namespace dekoder
