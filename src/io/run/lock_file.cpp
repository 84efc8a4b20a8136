// SPDX-License-Identifier: Apache-2.0
#include "io/run/lock_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <sstream>

#include "base/process_space.hpp"
#include "io/files/input_file.hpp"

namespace dekoder {

namespace {

/// Whether /proc numbers the processes as this one sees them: not so where it was mounted outside of the namespace.
bool proc_is_ours() {
  std::error_code failure;
  return std::filesystem::read_symlink("/proc/self", failure) == std::to_string(::getpid());
}

/// One field of the lock's line: bytes that would end it become underscores. Bounded, as the line is.
std::string as_field(const char* text) {
  std::string field = text == nullptr || *text == '\0' ? "-" : text;
  field.resize(std::min<std::size_t>(field.size(), 255));
  for (char& c : field)
    if (static_cast<unsigned char>(c) <= ' ' || c == 0x7f) c = '_';
  return field;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

std::string random_token() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

LockHolder parse(const std::string& line) {
  std::istringstream fields(line);
  LockHolder h;
  fields >> h.host >> h.boot >> h.pid >> h.process_start >> h.job >> h.job_restarts >> h.since;
  if (fields.fail()) return LockHolder{};
  fields >> h.pid_namespace >> h.token;
  return h;
}

double seconds(const timespec& time) {
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

bool process_lives(const LockHolder& holder) {
  if (::kill(static_cast<pid_t>(holder.pid), 0) != 0 && errno == ESRCH) return false;
  if (!proc_is_ours()) return true;
  const ProcessStat stat = process_stat(std::to_string(holder.pid));
  // A zombie has ended: only its parent has not asked for its exit code yet.
  return stat.start == "-" || (stat.start == holder.process_start && stat.state != "Z" && stat.state != "X");
}

}  // namespace

double local_time() {
  timespec now = {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return seconds(now);
}

double file_system_time(const std::filesystem::path& file) {
  const std::string probe = fmt::format("{}.{}.tmp", file.string(), random_token());
  const int descriptor = ::open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0) return local_time();
  struct stat status = {};
  const bool known = ::futimens(descriptor, nullptr) == 0 && ::fstat(descriptor, &status) == 0;
  ::close(descriptor);
  ::unlink(probe.c_str());
  return known ? seconds(status.st_mtim) : local_time();
}

LockHolder LockHolder::here() {
  LockHolder holder;
  holder.host = as_field(host_name().c_str());
  holder.boot = boot_id();
  holder.pid = ::getpid();
  holder.process_start = process_stat("self").start;
  holder.job = as_field(std::getenv("SLURM_JOB_ID"));
  holder.job_restarts = std::atol(as_field(std::getenv("SLURM_RESTART_COUNT")).c_str());
  holder.since = utc_now();
  holder.pid_namespace = dekoder::pid_namespace();
  holder.token = random_token();
  return holder;
}

std::string LockHolder::line() const {
  return fmt::format("{} {} {} {} {} {} {} {} {}\n", host, boot, pid, process_start, job, job_restarts, since,
                     pid_namespace, token);
}

std::string LockHolder::text() const {
  if (host.empty()) return "a process that its lock file does not name";
  return fmt::format("process {} on {}{}, since {}", pid, host,
                     job == "-" ? "" : fmt::format(" (Slurm job {})", job), since);
}

std::optional<LockFile> read_lock_file(const std::filesystem::path& file) {
  const std::filesystem::path parent = file.parent_path();
  // NFS then asks the server whether the names in it have changed.
  if (const int folder = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      folder >= 0)
    ::close(folder);
  LockFile lock;
  char text[1024];
  struct stat status = {};
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  const int error = errno;
  if (descriptor < 0 && error == ENOENT && is_broken_link(file)) {
    lock.unreadable = "is a symbolic link whose target is missing";
  } else if (descriptor < 0 && (error == ENOENT || error == ENOTDIR)) {
    return std::nullopt;
  } else if (descriptor < 0) {
    lock.unreadable = std::strerror(error);
  } else {
    const ssize_t length = ::read(descriptor, text, sizeof(text));
    if (length < 0 || ::fstat(descriptor, &status) != 0)
      lock.unreadable = std::strerror(errno);
    else if (const auto other = other_file_kind(status.st_mode))
      lock.unreadable = "is " + *other;
    else
      lock.contents.assign(text, std::size_t(length));
    ::close(descriptor);
  }
  if (!lock.unreadable.empty() && ::stat(file.c_str(), &status) != 0) ::lstat(file.c_str(), &status);
  lock.regular =
      status.st_mode == 0 || S_ISREG(status.st_mode);  // 0: not known, in a folder that may not be searched
  lock.renewed = seconds(status.st_mtim);
  lock.holder = parse(lock.contents);
  return lock;
}

LockVerdict judge(const LockFile& lock, const std::function<double()>& now) {
  LockVerdict verdict;
  const auto dead = [&](std::string reason) {
    verdict.dead = true;
    verdict.reason = std::move(reason);
    return verdict;
  };
  verdict.heartbeat_age = std::max(0.0, local_time() - lock.renewed);
  if (!lock.unreadable.empty()) return verdict;
  const LockHolder& holder = lock.holder;
  const LockHolder here = LockHolder::here();
  if (!holder.host.empty()) {
    if (holder.job != "-" && holder.job == here.job && holder.job_restarts < here.job_restarts)
      return dead("Slurm has started its job again");
    const bool has_heartbeat = !holder.token.empty();
    const bool same_boot = holder.boot != "-" && holder.boot == here.boot;
    const bool same_namespace = has_heartbeat
                                    ? holder.pid_namespace != "-" && holder.pid_namespace == here.pid_namespace
                                    : holder.host == here.host;
    if (same_boot && same_namespace) return process_lives(holder) ? verdict : dead("that process is gone");
    if (!has_heartbeat)
      return holder.host == here.host && holder.boot != here.boot ? dead("its machine was started again since")
                                                                  : verdict;
  }
  const double age = now() - lock.renewed;
  if (age >= lock_timeout) return dead(fmt::format("it gave no heartbeat for {:.0f} s", age));
  verdict.heartbeat_age = std::max(0.0, age);
  verdict.taken_over_in = lock_timeout - age;
  return verdict;
}

}  // namespace dekoder
