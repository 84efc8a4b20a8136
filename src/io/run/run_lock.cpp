// SPDX-License-Identifier: Apache-2.0
#include "io/run/run_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>

#include "base/error.hpp"
#include "base/log.hpp"

namespace dekoder {

namespace {

/// What a lock file says, on one line of fields without spaces.
struct Holder {
  std::string host, boot;  ///< node and its boot: process numbers mean nothing beyond
  long pid = 0;
  std::string process_start;  ///< ticks since boot: tells a process from a later one of the same number
  std::string job = "-";      ///< Slurm job
  long job_restarts = 0;      ///< how often Slurm has requeued it
  std::string since;

  bool operator==(const Holder&) const = default;
};

std::string first_word(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word.empty() ? "-" : word;
}

/// Field 22 of /proc/<pid>/stat (proc(5)); "-" where there is no such process.
std::string process_start(long pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  const std::size_t name_end = text.rfind(')');  // the name, field 2, may hold spaces
  if (name_end == std::string::npos) return "-";
  std::istringstream fields(text.substr(name_end + 1));
  std::string field;
  for (int i = 3; i <= 22; ++i) fields >> field;
  return field;
}

std::string environment(const char* name, const char* missing) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? missing : value;
}

Holder this_process() {
  Holder holder;
  char host[256] = {};
  ::gethostname(host, sizeof(host) - 1);
  holder.host = *host == '\0' ? "-" : host;
  holder.boot = first_word("/proc/sys/kernel/random/boot_id");
  holder.pid = ::getpid();
  holder.process_start = process_start(holder.pid);
  holder.job = environment("SLURM_JOB_ID", "-");
  holder.job_restarts = std::atol(environment("SLURM_RESTART_COUNT", "0").c_str());
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  holder.since = text;
  return holder;
}

std::string to_line(const Holder& h) {
  return fmt::format("{} {} {} {} {} {} {}\n", h.host, h.boot, h.pid, h.process_start, h.job, h.job_restarts,
                     h.since);
}

/// False where the file does not exist. A lock that cannot be read has an empty host.
bool read_holder(const std::filesystem::path& path, Holder& holder) {
  std::ifstream file(path);
  if (!file.is_open()) {
    std::error_code ignored;
    holder = Holder{};
    return std::filesystem::exists(path, ignored);
  }
  Holder read;
  file >> read.host >> read.boot >> read.pid >> read.process_start >> read.job >> read.job_restarts >> read.since;
  holder = file.fail() ? Holder{} : read;
  return true;
}

std::string describe(const Holder& holder) {
  if (holder.host.empty()) return "a process that its lock file does not name";
  const std::string job = holder.job == "-" ? "" : fmt::format(" (Slurm job {})", holder.job);
  return fmt::format("process {} on {}{}, since {}", holder.pid, holder.host, job, holder.since);
}

/// Only what is certain counts as dead.
bool is_dead(const Holder& holder) {
  if (holder.host.empty()) return false;
  const Holder here = this_process();
  if (holder.job != "-" && holder.job == here.job && holder.job_restarts < here.job_restarts) return true;
  if (holder.host != here.host) return false;
  if (holder.boot != here.boot) return true;
  if (::kill(static_cast<pid_t>(holder.pid), 0) != 0 && errno == ESRCH) return true;
  const std::string start = process_start(holder.pid);
  return start != "-" && start != holder.process_start;
}

[[noreturn]] void refuse(const std::filesystem::path& file, const Holder& holder) {
  throw ConfigError("{}: in use by {}; wait for it or choose another run directory{}", file.parent_path().string(),
                    describe(holder),
                    holder.host == this_process().host
                        ? std::string()
                        : fmt::format(". If that process is surely gone, delete {}", file.string()));
}

std::filesystem::path write_own(const std::filesystem::path& file) {
  const std::filesystem::path own = file.string() + fmt::format(".{}.tmp", ::getpid());
  std::ofstream stream(own);
  stream << to_line(this_process()) << std::flush;
  if (!stream) {
    const int failed = errno;
    ::unlink(own.c_str());
    throw ConfigError(
        "{}: cannot be written: {}; free some space, change its permissions, or choose another run directory",
        file.parent_path().string(), std::strerror(failed));
  }
  return own;
}

/// Puts our lock in the place of a dead holder's. False where another process was faster. The old file is locked
/// meanwhile, so that of several takers one sees it in place and the others do not.
bool take_over(const std::filesystem::path& file, const Holder& dead) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return false;
  struct stat opened = {}, named = {};
  Holder now;
  const bool ours = ::flock(descriptor, LOCK_EX) == 0 && ::fstat(descriptor, &opened) == 0 &&
                    ::stat(file.c_str(), &named) == 0 && opened.st_ino == named.st_ino && read_holder(file, now) &&
                    now == dead;
  bool taken = false;
  if (ours) {
    const std::filesystem::path own = write_own(file);
    taken = std::rename(own.c_str(), file.c_str()) == 0;
    if (!taken) ::unlink(own.c_str());
  }
  ::close(descriptor);
  if (taken) log_info("took over the lock of {}: that process is gone", describe(dead));
  return taken;
}

}  // namespace

RunLock::RunLock(std::filesystem::path file) : file_(std::move(file)) {
  for (int attempt = 0; attempt < 10; ++attempt) {
    Holder holder;
    if (read_holder(file_, holder)) {
      if (!is_dead(holder)) refuse(file_, holder);
      if (take_over(file_, holder)) return;
      continue;
    }
    // A link appears with its contents, unlike a file made with O_EXCL, and fails where the name exists.
    const std::filesystem::path own = write_own(file_);
    const int failed = ::link(own.c_str(), file_.c_str()) == 0 ? 0 : errno;
    int descriptor = -1;
    if (failed != 0 && failed != EEXIST)  // no hard links here
      descriptor = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    ::unlink(own.c_str());
    if (failed == 0) return;
    if (descriptor >= 0) {
      const std::string line = to_line(this_process());
      const bool written = ::write(descriptor, line.data(), line.size()) == static_cast<ssize_t>(line.size());
      ::close(descriptor);
      if (written) return;
      ::unlink(file_.c_str());
      throw ConfigError("{}: cannot be written", file_.string());
    }
  }
  throw ConfigError("{}: cannot be locked: other processes are starting here", file_.parent_path().string());
}

RunLock::~RunLock() {
  if (file_.empty()) return;
  Holder holder;
  const Holder here = this_process();
  if (read_holder(file_, holder) && holder.host == here.host && holder.pid == here.pid) ::unlink(file_.c_str());
}

std::string RunLock::live_holder(const std::filesystem::path& file) {
  Holder holder;
  return read_holder(file, holder) && !is_dead(holder) ? describe(holder) : std::string();
}

}  // namespace dekoder
