// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <utility>

namespace dekoder {

/// One process per run directory: a file that names its holder (host, process, start time, Slurm job).
class RunLock {
 public:
  /// Takes the lock. That of a dead process of this host, or of an earlier start of the same Slurm job, is taken
  /// over with a log line. Throws ConfigError naming the holder, with nothing touched, where another process holds
  /// it.
  explicit RunLock(std::filesystem::path file);
  RunLock(RunLock&& other) noexcept : file_(std::exchange(other.file_, {})) {}
  RunLock& operator=(RunLock&&) = delete;
  /// Releases it.
  ~RunLock();

  /// The process that holds a lock now ("process 4711 on node n1 since 2026-11-24 21:40:03 UTC"); empty where there
  /// is no lock or its holder is dead.
  static std::string live_holder(const std::filesystem::path& file);

 private:
  std::filesystem::path file_;
};

}  // namespace dekoder
