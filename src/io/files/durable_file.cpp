// SPDX-License-Identifier: Apache-2.0
#include "io/files/durable_file.hpp"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/error.hpp"

namespace dekoder {

namespace {

void sync_path(const std::filesystem::path& path, int flags, bool folder) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC);
  if (descriptor < 0)
    throw DataError("{}: cannot be opened to be synchronised: {}", path.string(), std::strerror(errno));
  int failed = ::fsync(descriptor) == 0 ? 0 : errno;
  if (folder && (failed == EINVAL || failed == EROFS)) failed = 0;
  ::close(descriptor);
  if (failed != 0) throw DataError("{}: did not reach the disk: {}", path.string(), std::strerror(failed));
}

}  // namespace

void sync_file(const std::filesystem::path& file) {
  sync_path(file, O_RDONLY, false);
}

void sync_folder(const std::filesystem::path& folder) {
  sync_path(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY, true);
}

void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& final_name) {
  sync_file(temporary);
  if (std::rename(temporary.c_str(), final_name.c_str()) != 0)
    throw DataError("{}: cannot be renamed to {}: {}", temporary.string(), final_name.string(),
                    std::strerror(errno));
  sync_folder(final_name.parent_path());
}

TemporaryFile::TemporaryFile(std::filesystem::path path) : path_(std::move(path)) {
  ::unlink(path_.c_str());
}

TemporaryFile::~TemporaryFile() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

std::filesystem::path link_target(std::filesystem::path path) {
  std::error_code failure;
  for (int links = 0; links < 40 && std::filesystem::is_symlink(path, failure); ++links) {
    const std::filesystem::path target = std::filesystem::read_symlink(path, failure);
    if (failure) break;
    path = path.parent_path() / target;
  }
  return path;
}

std::string bytes_text(std::uint64_t bytes) {
  if (bytes < 1000) return fmt::format("{} bytes", bytes);
  if (bytes < 1000 * 1000) return fmt::format("{:.1f} kB", double(bytes) / 1e3);
  return fmt::format("{:.1f} MB", double(bytes) / 1e6);
}

void require_space(const std::filesystem::path& folder, std::uint64_t bytes) {
  struct statvfs space = {};
  if (::statvfs(folder.empty() ? "." : folder.c_str(), &space) != 0) return;  // not known: writing will tell
  const std::uint64_t free_bytes = std::uint64_t{space.f_bavail} * space.f_frsize;
  if (free_bytes < bytes)
    throw DataError("{}: {} are free, {} are needed; free some space", folder.empty() ? "." : folder.string(),
                    bytes_text(free_bytes), bytes_text(bytes));
}

void reserve_space(const std::filesystem::path& file, std::uint64_t bytes) {
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  if (descriptor < 0) throw DataError("{}: cannot be opened: {}", file.string(), std::strerror(errno));
  const int failed = ::fallocate(descriptor, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
  ::close(descriptor);
  if (failed == ENOSPC || failed == EDQUOT || failed == EFBIG || failed == EIO)
    throw DataError("{}: no space for {}: {}", file.string(), bytes_text(bytes), std::strerror(failed));
}

void release_space(const std::filesystem::path& file) {
  std::error_code failure;
  const std::uintmax_t bytes = std::filesystem::file_size(file, failure);
  if (failure) throw DataError("{}: has no size: {}", file.string(), failure.message());
  if (::truncate(file.c_str(), static_cast<off_t>(bytes)) != 0)
    throw DataError("{}: cannot be cut to its length: {}", file.string(), std::strerror(errno));
}

void write_file_whole(const std::filesystem::path& file, std::string_view contents) {
  const std::filesystem::path temporary = file.string() + ".tmp";
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) throw DataError("{}: cannot be created: {}", temporary.string(), std::strerror(errno));
  ssize_t written;
  do written = ::write(descriptor, contents.data(), contents.size());
  while (written < 0 && errno == EINTR);
  const int failed = written == static_cast<ssize_t>(contents.size()) ? 0 : written < 0 ? errno : ENOSPC;
  ::close(descriptor);
  try {
    if (failed != 0) throw DataError("{}: cannot be written: {}", temporary.string(), std::strerror(failed));
    publish_file(temporary, file);
  } catch (const DataError&) {
    ::unlink(temporary.c_str());
    throw;
  }
}

}  // namespace dekoder
