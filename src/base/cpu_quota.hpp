// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace dekoder {

/// Seconds of CPU time that this process's control groups may take in a second, as containers set it beside the
/// CPUs themselves (cgroups(7): cpu.max of version 2, cpu.cfs_quota_us of version 1); 0: no such limit, or the
/// system does not tell. `own`: /proc/<process>/cgroup; `root`: where the groups are mounted.
double cpu_quota(const std::filesystem::path& own = "/proc/self/cgroup",
                 const std::filesystem::path& root = "/sys/fs/cgroup");

}  // namespace dekoder
