// SPDX-License-Identifier: Apache-2.0
#include "io/files/append_log.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/fault_point.hpp"
#include "io/files/input_file.hpp"

namespace dekoder {

namespace {

/// Length up to and with the last line end among the first `limit` bytes. Throws ReadError: what cannot be read is
/// not cut away.
std::uint64_t whole_lines(const std::string& path, int descriptor, std::uint64_t limit) {
  std::vector<char> block(1 << 16);
  while (limit > 0) {
    const std::uint64_t size = std::min<std::uint64_t>(limit, block.size()), begin = limit - size;
    const ssize_t got = ::pread(descriptor, block.data(), size, static_cast<off_t>(begin));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_read_error(path, errno);
    if (got != static_cast<ssize_t>(size)) throw ReadError("{}: became shorter while it was read", path);
    const auto line_end = std::find(block.rend() - static_cast<std::ptrdiff_t>(size), block.rend(), '\n');
    if (line_end != block.rend()) return begin + static_cast<std::uint64_t>(block.rend() - line_end);
    limit = begin;
  }
  return 0;
}

struct stat status_of(const std::string& path, int descriptor) {
  struct stat found = {};
  if (::fstat(descriptor, &found) != 0) throw_read_error(path, errno);
  return found;
}

/// Opens or creates a regular file. Throws ConfigError where it cannot be one, ReadError where it is one that is
/// there: of earlier steps, so that nothing is to take its place.
int open_log(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0666);
  struct stat found = {};
  if (descriptor < 0) {
    const int error = errno;
    if (::stat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode))
      throw_read_error(path.string(), error, "cannot be opened for reading and writing");
    throw ConfigError("{}: cannot be opened for writing: {}; move it away or choose another --run", path.string(),
                      std::strerror(error));
  }
  if (::fstat(descriptor, &found) == 0 && S_ISREG(found.st_mode)) return descriptor;
  ::close(descriptor);
  throw ConfigError("{}: is {}, expected a regular file; move it away or choose another --run", path.string(),
                    other_file_kind(found.st_mode).value_or("gone"));
}

}  // namespace

AppendLog::AppendLog(std::filesystem::path path, std::uint64_t kept_bytes, std::function<void()> require_ours)
    : path_(std::move(path)),
      require_ours_(std::move(require_ours)),
      descriptor_(open_log(path_)),
      bytes_(kept_bytes) {}

AppendLog::~AppendLog() {
  try {
    if (!pending_.empty()) flush();
  } catch (const UserError&) {  // the run, and its log, are another process's
  }
  ::close(descriptor_);
}

void AppendLog::cut() {
  cut_behind_a_line(bytes_, "since the checkpoint");
}

void AppendLog::cut_behind_a_line(std::uint64_t most_bytes, std::string_view since) {
  const auto length = static_cast<std::uint64_t>(status_of(path_.string(), descriptor_).st_size);
  const std::uint64_t whole = whole_lines(path_.string(), descriptor_, std::min(length, most_bytes));
  if (whole != length && ::ftruncate(descriptor_, static_cast<off_t>(whole)) != 0)
    throw ConfigError("{}: cannot be cut to {} bytes: {}", path_.string(), whole, std::strerror(errno));
  if (const std::uint64_t expected = std::exchange(bytes_, whole); whole != expected)
    log_warning("{}: was changed {}: {} bytes of whole lines, expected {}; {}", path_.string(), since, whole,
                expected, whole < expected ? "lines are missing in it" : "there are lines in it of somebody else");
}

bool AppendLog::was_changed() const {
  struct stat found = {};
  return ::fstat(descriptor_, &found) != 0 || found.st_nlink == 0 ||
         static_cast<std::uint64_t>(found.st_size) != bytes_;
}

/// One that was deleted, or replaced, as editors do, is opened anew.
void AppendLog::follow_changes() {
  struct stat found = status_of(path_.string(), descriptor_);
  if (found.st_nlink == 0) {
    const int opened = open_log(path_);
    ::close(std::exchange(descriptor_, opened));
    found = status_of(path_.string(), descriptor_);
  }
  if (static_cast<std::uint64_t>(found.st_size) != bytes_)
    cut_behind_a_line(std::numeric_limits<std::uint64_t>::max(), "while it was written");
}

std::string AppendLog::flush() {
  fault_point("log:write");
  std::string reason;
  // By a successor, perhaps, that took the run over while this process stood still, a moment ago.
  const bool changed = was_changed();
  if (changed) require_ours_();
  try {
    if (changed) follow_changes();
    const int failed = write_whole(descriptor_, pending_);
    if (failed == 0) {
      bytes_ += pending_.size();
      pending_.clear();
      if (std::exchange(warned_, false)) log_info("{}: can be written again; no line is lost", path_.string());
      return "";
    }
    reason = fmt::format("{}: cannot be written: {}", path_.string(), std::strerror(failed));
    if (::ftruncate(descriptor_, static_cast<off_t>(bytes_)) != 0)
      reason += " (and a part of a line could not be taken back)";
  } catch (const UserError& error) {
    reason = error.what();
  }
  if (!std::exchange(warned_, true)) log_warning("{}; lines wait in memory until it can be written", reason);
  return reason;
}

void AppendLog::append(std::string_view text) {
  pending_ += text;
  flush();
}

std::uint64_t AppendLog::durable_bytes() {
  std::string reason = flush();
  if (reason.empty() && ::fsync(descriptor_) != 0)
    reason = fmt::format("{}: cannot be written: {}", path_.string(), std::strerror(errno));
  if (!reason.empty()) throw SaveError("{}; the state is not saved, as its log is not; free some space", reason);
  return bytes_;
}

}  // namespace dekoder
