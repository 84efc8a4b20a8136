// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "io/hdf5/hdf5_file.hpp"
#include "io/run/attention_file.hpp"

namespace dekoder {

/// An attention.h5 as it is at construction (format: attention_file.hpp), also that of a run that is going on: the
/// writer replaces the file as a whole. Errors: DataError naming file, dataset, what and remedy.
class AttentionReader {
 public:
  /// Opens the file and checks that it is whole: format, probes with tokens, every step with maps and statistics of
  /// the right shapes.
  explicit AttentionReader(const std::filesystem::path& path);

  const AttentionFileInfo& info() const { return info_; }
  /// Steps that all probes have, ascending.
  const std::vector<long>& steps() const { return steps_; }
  /// Maps and statistics of the probe info().probes[probe] at one of steps(). A damaged chunk throws DataError.
  AttentionMaps read(std::size_t probe, long step) const;

 private:
  void check_format() const;
  void read_probes();
  void read_steps();

  Hdf5File file_;
  AttentionFileInfo info_;
  std::vector<long> steps_;
};

}  // namespace dekoder
