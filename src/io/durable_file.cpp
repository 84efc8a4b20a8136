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

}  // namespace dekoder
