// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace dekoder {

/// A text file that only grows, cut on a restart to the length that belongs to the checkpoint.
class AppendLog {
 public:
  /// Opens or creates the file and cuts it to `kept_bytes` (0: a new run). Where the file is shorter, or the cut is
  /// not behind a line end, the file was changed from outside: what is there up to the last line end is kept, with
  /// a warning. Throws ConfigError where it cannot be opened or is no regular file, ReadError where it cannot be
  /// read.
  AppendLog(std::filesystem::path path, std::uint64_t kept_bytes);
  AppendLog(const AppendLog&) = delete;
  AppendLog& operator=(const AppendLog&) = delete;
  ~AppendLog();

  /// Adds text that ends with a line end. Where the disk is full the text waits in memory, with one
  /// warning, and goes out with the next call that succeeds, so no part of a line is ever left in the file.
  void append(std::string_view text);

  /// Brings everything to the disk and returns the length: what a checkpoint stores. Throws SaveError where the
  /// disk does not take it.
  std::uint64_t durable_bytes();

 private:
  void cut_to(std::uint64_t kept_bytes);
  bool flush();

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t bytes_ = 0;  ///< whole lines in the file
  std::string pending_;      ///< lines the disk has not taken yet
  bool warned_ = false;
};

}  // namespace dekoder
