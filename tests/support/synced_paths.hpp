// SPDX-License-Identifier: Apache-2.0
// Stands in front of the C library's fsync in the test that includes it, once: whether what was written also
// reaches the disk shows in nothing else short of a power failure.
#pragma once

#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

namespace dekoder::testing_support {

/// What fsync was called for, in order; for tests of one thread.
inline std::vector<std::filesystem::path> synced_paths;

}  // namespace dekoder::testing_support

extern "C" int fsync(int descriptor) {
  std::error_code unknown;
  dekoder::testing_support::synced_paths.push_back(
      std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", descriptor), unknown));
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}
