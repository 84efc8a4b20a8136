// SPDX-License-Identifier: Apache-2.0
#include "io/run/run_lock.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <mutex>
#include <thread>

#include "base/error.hpp"
#include "base/helper_thread.hpp"
#include "base/log.hpp"
#include "io/files/fault_point.hpp"
#include "io/files/input_file.hpp"
#include "io/files/xxh64.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds heartbeat_interval{10};
/// Seconds after a heartbeat in which stop_if_lost trusts it: far fewer than lock_timeout, more than the interval.
constexpr std::int64_t lease = 15;

std::int64_t seconds_since_boot() {
  timespec now = {};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return now.tv_sec;
}

/// Creates a file that is not there yet. Returns 0 or the error.
int write_new(const fs::path& file, const std::string& contents) {
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0) return errno;
  const ssize_t written = ::write(descriptor, contents.data(), contents.size());
  int failed = written == static_cast<ssize_t>(contents.size()) ? 0 : written < 0 ? errno : ENOSPC;
  if (::close(descriptor) != 0 && failed == 0) failed = errno;
  if (failed != 0) ::unlink(file.c_str());
  return failed;
}

[[noreturn]] void throw_unwritable(const fs::path& file, int failed) {
  throw ConfigError(
      "{}: the lock cannot be written: {}; free some space, change its permissions, or choose another run "
      "directory",
      file.string(), std::strerror(failed));
}

/// A finished file with our contents, under a name that no other process uses.
fs::path write_own(const fs::path& file, const std::string& contents) {
  const fs::path own = fmt::format("{}.{}.tmp", file.string(), contents.substr(contents.rfind(' ') + 1, 16));
  if (const int failed = write_new(own, contents); failed != 0) throw_unwritable(own, failed);
  return own;
}

/// Makes `file`, for one of all processes that try. False where it exists.
bool create_alone(const fs::path& file, const std::string& contents) {
  // A link appears with its contents, unlike a file made with O_EXCL, and fails where the name exists.
  const fs::path own = write_own(file, contents);
  int failed = ::link(own.c_str(), file.c_str()) == 0 ? 0 : errno;
  struct stat status = {};
  if (failed == EEXIST && ::stat(own.c_str(), &status) == 0 && status.st_nlink == 2)
    failed = 0;  // NFS asked twice as the first answer, that it was made, got lost
  ::unlink(own.c_str());
  if (failed != 0 && failed != EEXIST) failed = write_new(file, contents);  // no hard links here
  if (failed != 0 && failed != EEXIST) throw_unwritable(file, failed);
  return failed == 0;
}

/// One that is dated far ahead, by hand or by a clock that was put back since, is dated anew: the time without a
/// heartbeat is counted from now, instead of never.
LockVerdict judge_to_take(const LockFile& lock, const fs::path& file) {
  LockVerdict verdict = judge(lock, [&] { return file_system_time(file); });
  if (verdict.taken_over_in > 2 * lock_timeout && ::utimensat(AT_FDCWD, file.c_str(), nullptr, 0) == 0)
    verdict.taken_over_in = lock_timeout;
  return verdict;
}

bool take_over(const fs::path& file, const LockFile& dead, const std::string& contents);

/// The right to replace `file` as long as it has these contents belongs to who makes a file named after them: no
/// lock ever has the contents of another one. So of many that saw the same dead holder one goes on, and one that
/// comes late finds other contents. Returns the claim, to be deleted after the replacement; nothing where another
/// process was faster. Needs nothing but link and rename, which all file systems of clusters have; file locks not.
std::optional<fs::path> claim(const fs::path& file, const LockFile& dead, const std::string& contents) {
  Xxh64 digest;
  digest.update(dead.contents);
  const fs::path folder = file.parent_path();
  const fs::path name = folder / fmt::format("lock.{:016x}.claim", digest.digest());
  if (!create_alone(name, contents)) {  // of a process that is at it, or died at it
    const auto other = read_lock_file(name);
    if (!other || !judge_to_take(*other, name).dead || !take_over(name, *other, contents)) return std::nullopt;
  }
  if (const auto found = read_lock_file(file);
      found && found->unreadable.empty() && found->contents == dead.contents && judge_to_take(*found, file).dead)
    return name;
  ::unlink(name.c_str());
  return std::nullopt;
}

/// Puts our lock in the place of a dead holder's. False where another process was faster.
bool take_over(const fs::path& file, const LockFile& dead, const std::string& contents) {
  const auto claimed = claim(file, dead, contents);
  if (!claimed) return false;
  fault_point("lock:claimed");
  const fs::path own = write_own(file, contents);
  const int failed = std::rename(own.c_str(), file.c_str()) == 0 ? 0 : errno;
  if (failed != 0) ::unlink(own.c_str());
  ::unlink(claimed->c_str());
  if (failed != 0) throw_unwritable(file, failed);
  return true;
}

/// Deletes what processes left beside the lock that died while they took it.
void remove_left_over(const fs::path& file) {
  const auto mine = read_lock_file(file);
  std::error_code failure;
  for (const fs::path& entry : folder_entries(file.parent_path(), failure)) {
    const std::string name = entry.filename().string();
    if (!mine || !name.starts_with("lock.") || !(name.ends_with(".tmp") || name.ends_with(".claim"))) continue;
    const auto found = read_lock_file(entry);
    if (found && mine->renewed - found->renewed > lock_timeout) ::unlink(entry.c_str());
  }
}

[[noreturn]] void refuse(const fs::path& file, const RunLock::Holder& holder) {
  throw ConfigError(
      "{}: in use by {}{}; wait for it or choose another --run. If that process is surely gone, delete {}",
      file.parent_path().string(), holder.text,
      holder.taken_over_in ? fmt::format("; without a further one the lock is taken over in {:.0f} s",
                                         std::ceil(*holder.taken_over_in))
                           : std::string(),
      file.string());
}

RunLock::Holder describe(const LockFile& lock, const LockVerdict& verdict) {
  const std::string heartbeat = lock.holder.token.empty() && !lock.holder.host.empty()
                                    ? std::string()
                                    : fmt::format(", heartbeat {:.0f} s ago", verdict.heartbeat_age);
  return {lock.holder.text() + (lock.unreadable.empty() ? "" : fmt::format(" ({})", lock.unreadable)) + heartbeat,
          verdict.heartbeat_age, verdict.taken_over_in};
}

/// Until the lock is ours, or a live process's.
void acquire(const fs::path& file, const std::string& contents) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    const auto found = read_lock_file(file);
    if (!found) {
      if (create_alone(file, contents)) return;
      continue;
    }
    if (!found->regular)
      throw ConfigError("{}: {}; expected the lock of the run, a regular file: remove it or choose another --run",
                        file.string(), found->unreadable);
    const LockVerdict verdict = judge_to_take(*found, file);
    const bool being_made = found->contents.empty() && found->unreadable.empty() && verdict.heartbeat_age < 1;
    if (!verdict.dead && !being_made) refuse(file, describe(*found, verdict));
    if (verdict.dead && take_over(file, *found, contents)) {
      log_info("took over the lock of {}: {}", found->holder.text(), verdict.reason);
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // another process takes it
  }
  throw ConfigError("{}: other processes are taking over its lock; try again in {:.0f} s",
                    file.parent_path().string(), lock_timeout);
}

}  // namespace

RunLock::RunLock(fs::path file) : file_(std::move(file)), contents_(LockHolder::here().line()) {
  acquire(file_, contents_);
  try {
    remove_left_over(file_);
    renewed_ = seconds_since_boot();
    heartbeat_ = start_helper_thread("heartbeat", [this, stop = stop_.get_token()] { beat(stop); });
  } catch (...) {
    release();
    throw;
  }
}

RunLock::~RunLock() {
  if (heartbeat_.joinable()) {
    stop_.request_stop();
    heartbeat_.join();
  }
  release();
}

void RunLock::release() {
  // After a heartbeat nobody takes the lock over, so what is deleted is ours.
  if (renew() == Held::yes) ::unlink(file_.c_str());
}

RunLock::Held RunLock::renew() {
  if (lost_) return Held::no;
  const auto found = read_lock_file(file_);
  if (found && !found->unreadable.empty()) return Held::unknown;
  if (!found || found->contents != contents_) {
    lost_ = true;
    return Held::no;
  }
  if (::utimensat(AT_FDCWD, file_.c_str(), nullptr, 0) == 0)
    renewed_ = seconds_since_boot();
  else if (const int failed = errno; !warned_.exchange(true))
    log_warning("{}: cannot be renewed: {}; another machine may take the run over in {:.0f} s", file_.string(),
                std::strerror(failed), lock_timeout);
  return Held::yes;
}

void RunLock::beat(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  const auto stopping = [&] { return stop.stop_requested(); };
  while (!wake.wait_for(lock, stop, heartbeat_interval, stopping)) renew();
}

void RunLock::require_held() {
  const Held held = renew();
  if (held == Held::no) throw_lost();
  if (held == Held::unknown)
    throw SaveError("{}: cannot be read, so that another process may have taken the run over: {}", file_.string(),
                    read_lock_file(file_).value_or(LockFile{}).unreadable);
}

void RunLock::stop_if_lost() {
  if (lost_ || (seconds_since_boot() - renewed_ > lease && renew() == Held::no)) throw_lost();
}

void RunLock::throw_lost() const {
  const auto found = read_lock_file(file_);
  throw ConfigError(
      "{}: the run was taken over: {}. That happens to a process that was stopped, or cut off from its disk, for "
      "{:.0f} s, whose lock is deleted, or whose job Slurm starts again. This process ends and writes nothing "
      "more; the newest checkpoint stands",
      file_.parent_path().string(),
      found ? "its lock is of " + found->holder.text() : file_.string() + " was deleted", lock_timeout);
}

std::optional<RunLock::Holder> RunLock::holder(const fs::path& file) {
  const auto found = read_lock_file(file);
  if (!found || !found->regular) return std::nullopt;
  const LockVerdict verdict = judge(*found, local_time);
  if (verdict.dead) return std::nullopt;
  return describe(*found, verdict);
}

}  // namespace dekoder
