// SPDX-License-Identifier: Apache-2.0
// What the lock file of a run says: who holds the run, and whether that process still lives.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

namespace dekoder {

/// A lock whose holder cannot be looked at is taken over this many seconds after its last heartbeat.
inline constexpr double lock_timeout = 120;

/// A process that holds a lock: fields without spaces, "-" where one is not known.
struct LockHolder {
  std::string host, boot;     ///< node, and its kernel since it was started
  long pid = 0;               ///< means something within one boot and one PID namespace only
  std::string process_start;  ///< ticks since boot: tells a process from a later one of the same number
  std::string job = "-";      ///< Slurm job
  long job_restarts = 0;      ///< how often Slurm has requeued it
  std::string since;          ///< UTC
  std::string pid_namespace;  ///< inode of /proc/self/ns/pid; empty in locks of programs without heartbeat
  std::string token;          ///< random: no two locks have the same contents

  /// This process, with a new token.
  static LockHolder here();
  /// Contents of the lock file.
  std::string line() const;
  /// "process 4711 on n1 (Slurm job 7), since 2026-11-24T21:40:03Z".
  std::string text() const;
};

/// A lock file as it was found.
struct LockFile {
  std::string contents;
  LockHolder holder;       ///< host is empty where the contents name none
  std::string unreadable;  ///< the system's reason; empty where the contents were read
  bool regular = true;  ///< false: a folder, a FIFO, a device, a broken link, which no program leaves as its lock
  double renewed = 0;   ///< modification time, seconds of the file system's clock: the last heartbeat
};

/// Nothing where there is no such file. Asks the server, on network file systems that keep folders in memory.
std::optional<LockFile> read_lock_file(const std::filesystem::path& file);

/// Whether the holder of a lock may be alive.
struct LockVerdict {
  bool dead = false;
  std::string reason;                   ///< of dead: "that process is gone"
  double heartbeat_age = 0;             ///< seconds
  std::optional<double> taken_over_in;  ///< seconds, where the heartbeat decides
};

/// An earlier start of this process's Slurm job is dead. A process of this boot and this PID namespace is looked
/// at. Of any other one the heartbeat decides: its age at the time that `now` gives, beyond lock_timeout. Locks of
/// programs without heartbeat, and such that cannot be read, count as alive where no process can be looked at.
LockVerdict judge(const LockFile& lock, const std::function<double()>& now);

/// Seconds by this machine's clock: for those who only look.
double local_time();

/// The same by the clock that stamps the files beside `file`, from a temporary one: of a file server that is the
/// server's, so that the machines' own clocks do not matter. This machine's where no file can be made.
double file_system_time(const std::filesystem::path& file);

}  // namespace dekoder
