// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "io/run/lock_file.hpp"

namespace dekoder {

/// One process per run directory: a file that names its holder, and whose modification time a thread of the holder
/// renews every ten seconds.
class RunLock {
 public:
  /// Takes the lock. That of a dead process (see judge) is taken over with a log line. Throws ConfigError naming
  /// the holder, with nothing touched, where another process holds it, and with the system's reason where it cannot
  /// be written.
  explicit RunLock(std::filesystem::path file);
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  /// Releases it.
  ~RunLock();

  /// Renews the heartbeat and makes sure that the lock is still this process's: before what must not be written
  /// twice. Throws ConfigError where another process has taken it over, as one may from a process that was stopped,
  /// or cut off from its disk, for lock_timeout seconds, or deleted it; SaveError where the lock cannot be read.
  void require_held();
  /// The first of these errors, at the price of reading a clock as long as heartbeats go through.
  void stop_if_lost();

  /// Who holds a lock now.
  struct Holder {
    std::string text;                     ///< "process 4711 on n1, since 2026-11-24T21:40:03Z, heartbeat 4 s ago"
    double heartbeat_age = 0;             ///< seconds
    std::optional<double> taken_over_in;  ///< seconds without a further heartbeat; nothing where it is not
  };
  /// Nothing where there is no lock or its holder is dead, by this machine's clock. Changes nothing.
  static std::optional<Holder> holder(const std::filesystem::path& file);

 private:
  enum class Held { yes, no, unknown };
  Held renew();
  void beat(const std::stop_token& stop);
  void release();
  [[noreturn]] void throw_lost() const;

  std::filesystem::path file_;
  const std::string contents_;
  std::atomic<bool> lost_ = false;
  std::atomic<std::int64_t> renewed_ = 0;  ///< seconds since boot, stops of the machine included
  std::atomic<bool> warned_ = false;       ///< that it cannot be renewed
  std::stop_source stop_;
  std::thread heartbeat_;
};

}  // namespace dekoder
