// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace dekoder {

/// A text file that only grows, cut on a restart to the length that belongs to the checkpoint. Where it was changed
/// from outside, before or while it is written, it goes on behind the last whole line that is there, and a warning
/// says so.
class AppendLog {
 public:
  /// Opens or creates the file, of which `kept_bytes` belong to the run (0: a new one). `require_ours` is called
  /// before anything is added to a file that was changed from outside, and throws where the run is another
  /// process's by now. Throws ConfigError where the file cannot be made or is no regular file, ReadError where it
  /// is there and cannot be opened.
  AppendLog(std::filesystem::path path, std::uint64_t kept_bytes, std::function<void()> require_ours = [] {});
  AppendLog(const AppendLog&) = delete;
  AppendLog& operator=(const AppendLog&) = delete;
  ~AppendLog();

  /// Removes what is behind `kept_bytes`, before anything is added. Throws ConfigError where that cannot be done,
  /// ReadError where the file cannot be read.
  void cut();

  /// Adds text that ends with a line end. Where the disk is full the text waits in memory, with one
  /// warning, and goes out with the next call that succeeds, so no part of a line is ever left in the file. Throws
  /// what `require_ours` does.
  void append(std::string_view text);

  /// Brings everything to the disk and returns the length: what a checkpoint stores. Throws SaveError where the
  /// disk does not take it, and what `require_ours` does.
  std::uint64_t durable_bytes();

 private:
  /// Returns why the lines still wait; empty where none does.
  std::string flush();
  bool was_changed() const;
  void follow_changes();
  void cut_behind_a_line(std::uint64_t most_bytes, std::string_view since);

  std::filesystem::path path_;
  std::function<void()> require_ours_;
  int descriptor_ = -1;
  std::uint64_t bytes_ = 0;  ///< of whole lines, which the file should have
  std::string pending_;      ///< lines the disk has not taken yet
  bool warned_ = false;
};

}  // namespace dekoder
