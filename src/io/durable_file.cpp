// SPDX-License-Identifier: Apache-2.0
#include "io/durable_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

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
