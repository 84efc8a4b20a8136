// SPDX-License-Identifier: Apache-2.0
#include "io/files/append_log.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"

namespace dekoder {

namespace {

/// Length up to and with the last line end among the first `limit` bytes.
std::uint64_t whole_lines(int descriptor, std::uint64_t limit) {
  std::vector<char> block(1 << 16);
  while (limit > 0) {
    const std::uint64_t size = std::min<std::uint64_t>(limit, block.size()), begin = limit - size;
    const ssize_t got = ::pread(descriptor, block.data(), size, static_cast<off_t>(begin));
    if (got != static_cast<ssize_t>(size)) return 0;
    const auto line_end = std::find(block.rend() - static_cast<std::ptrdiff_t>(size), block.rend(), '\n');
    if (line_end != block.rend()) return begin + static_cast<std::uint64_t>(block.rend() - line_end);
    limit = begin;
  }
  return 0;
}

}  // namespace

AppendLog::AppendLog(std::filesystem::path path, std::uint64_t kept_bytes) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0)
    throw ConfigError("{}: cannot be opened for writing: {}", path_.string(), std::strerror(errno));
  const off_t end = ::lseek(descriptor_, 0, SEEK_END);
  const auto length = static_cast<std::uint64_t>(std::max<off_t>(end, 0));
  bytes_ = whole_lines(descriptor_, std::min(length, kept_bytes));
  if (bytes_ != kept_bytes)
    log_warning(
        "{}: was changed since the checkpoint: {} bytes of whole lines, expected {}; lines are missing in it",
        path_.string(), bytes_, kept_bytes);
  if (::ftruncate(descriptor_, static_cast<off_t>(bytes_)) != 0) {
    const int failed = errno;
    ::close(descriptor_);
    throw ConfigError("{}: cannot be cut to {} bytes: {}", path_.string(), bytes_, std::strerror(failed));
  }
}

AppendLog::~AppendLog() {
  flush();
  ::close(descriptor_);
}

bool AppendLog::flush() {
  if (pending_.empty()) return true;
  std::size_t written = 0;  // a first call that takes a part is followed by one that says why not more
  ssize_t taken = 1;
  while (written < pending_.size() && (taken > 0 || (taken < 0 && errno == EINTR))) {
    taken = ::write(descriptor_, pending_.data() + written, pending_.size() - written);
    if (taken > 0) written += static_cast<std::size_t>(taken);
  }
  if (written == pending_.size()) {
    bytes_ += pending_.size();
    pending_.clear();
    if (std::exchange(warned_, false)) log_info("{}: can be written again; no line is lost", path_.string());
    return true;
  }
  const int failed = taken < 0 ? errno : ENOSPC;
  const bool cut = written == 0 || ::ftruncate(descriptor_, static_cast<off_t>(bytes_)) == 0;
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
