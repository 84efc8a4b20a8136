// SPDX-License-Identifier: Apache-2.0
// Stands in front of the C library's fsync and fallocate in the test that includes it, once: what is asked of the
// disk shows in nothing else short of a power failure or a full disk.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

namespace dekoder::testing_support {

/// What fsync was called for, in order; for tests of one thread.
inline std::vector<std::filesystem::path> synced_paths;
/// Where the space ends that fallocate asked for last; for tests of one thread.
inline off_t reserved_bytes = 0;

}  // namespace dekoder::testing_support

extern "C" int fsync(int descriptor) {
  std::error_code unknown;
  dekoder::testing_support::synced_paths.push_back(
      std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", descriptor), unknown));
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}

extern "C" int fallocate(int descriptor, int mode, off_t offset, off_t length) {
  dekoder::testing_support::reserved_bytes = offset + length;
  return static_cast<int>(::syscall(SYS_fallocate, descriptor, mode, offset, length));
}
