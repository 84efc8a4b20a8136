// SPDX-License-Identifier: Apache-2.0
#include "io/files/append_log.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "io/files/durable_file.hpp"
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

}  // namespace

AppendLog::AppendLog(std::filesystem::path path, std::uint64_t kept_bytes) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0666);
  if (descriptor_ < 0)
    throw ConfigError("{}: cannot be opened for writing: {}", path_.string(), std::strerror(errno));
  try {
    cut_to(kept_bytes);
  } catch (const UserError&) {
    ::close(descriptor_);
    throw;
  }
}

void AppendLog::cut_to(std::uint64_t kept_bytes) {
  struct stat found = {};
  if (::fstat(descriptor_, &found) != 0) throw_read_error(path_.string(), errno);
  if (const auto other = other_file_kind(found.st_mode))
    throw ConfigError("{}: is {}, expected a regular file; move it away or choose another --run", path_.string(),
                      *other);
  const auto length = static_cast<std::uint64_t>(found.st_size);
  bytes_ = whole_lines(path_.string(), descriptor_, std::min(length, kept_bytes));
  if (bytes_ != kept_bytes)
    log_warning(
        "{}: was changed since the checkpoint: {} bytes of whole lines, expected {}; lines are missing in it",
        path_.string(), bytes_, kept_bytes);
  if (::ftruncate(descriptor_, static_cast<off_t>(bytes_)) != 0)
    throw ConfigError("{}: cannot be cut to {} bytes: {}", path_.string(), bytes_, std::strerror(errno));
}

AppendLog::~AppendLog() {
  flush();
  ::close(descriptor_);
}

bool AppendLog::flush() {
  if (pending_.empty()) return true;
  const int failed = write_whole(descriptor_, pending_);
  if (failed == 0) {
    bytes_ += pending_.size();
    pending_.clear();
    if (std::exchange(warned_, false)) log_info("{}: can be written again; no line is lost", path_.string());
    return true;
  }
  const bool cut = ::ftruncate(descriptor_, static_cast<off_t>(bytes_)) == 0;
  if (!std::exchange(warned_, true))
    log_warning("{}: cannot be written: {}{}; lines wait in memory until it can", path_.string(),
                std::strerror(failed), cut ? "" : " (and a part of a line could not be taken back)");
  errno = failed;
  return false;
}

void AppendLog::append(std::string_view text) {
  pending_ += text;
  flush();
}

std::uint64_t AppendLog::durable_bytes() {
  if (!flush() || ::fsync(descriptor_) != 0)
    throw SaveError("{}: cannot be written: {}; the state is not saved, as its log is not; free some space",
                    path_.string(), std::strerror(errno));
  return bytes_;
}

}  // namespace dekoder
