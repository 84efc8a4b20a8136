// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "io/hdf5/hdf5_file.hpp"
#include "io/run/attention_file.hpp"

namespace dekoder {

/// The attention maps of one step in their file (format: attention_file.hpp). Errors: DataError naming file,
/// dataset, what and remedy.
class AttentionReader {
 public:
  /// Opens the file and checks that it is whole: format, probes with tokens, maps and statistics of the right
  /// shapes.
  explicit AttentionReader(const std::filesystem::path& path);

  const AttentionFileInfo& info() const { return info_; }
  long step() const { return step_; }
  /// Maps and statistics of the probe info().probes[probe]. A damaged chunk throws DataError.
  AttentionMaps read(std::size_t probe) const;
  /// Reads everything. Throws as read.
  void verify() const;

 private:
  void check_format() const;
  void read_probes();
  void check_shapes() const;

  Hdf5File file_;
  AttentionFileInfo info_;
  long step_;
};

}  // namespace dekoder
