// SPDX-License-Identifier: Apache-2.0
#include "base/cpu_quota.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// Of one group; 0: none. "max 100000" and -1 are no limits.
double quota_of(const fs::path& group) {
  double quota = 0, period = 0;
  if (std::ifstream both(group / "cpu.max"); both >> quota >> period && period > 0) return quota / period;
  std::ifstream(group / "cpu.cfs_quota_us") >> quota;
  std::ifstream(group / "cpu.cfs_period_us") >> period;
  return quota > 0 && period > 0 ? quota / period : 0;
}

/// Whether "cpu" is among "cpu,cpuacct".
bool has_cpu(const std::string& controllers) {
  return ("," + controllers + ",").find(",cpu,") != std::string::npos;
}

}  // namespace

double cpu_quota(const fs::path& own, const fs::path& root) {
  double smallest = 0;
  std::ifstream file(own);
  for (std::string line; std::getline(file, line);) {  // "0::/user.slice" or "4:cpu,cpuacct:/docker/12ab"
    std::istringstream fields(line);
    std::string number, controllers, path;
    std::getline(fields, number, ':');
    std::getline(fields, controllers, ':');
    std::getline(fields, path);
    if (!path.starts_with('/') || !(controllers.empty() || has_cpu(controllers))) continue;
    // Up to the root: the smallest counts, and in a container the path may be the host's, its root the container's.
    for (fs::path group = fs::path(path).relative_path();; group = group.parent_path()) {
      const double quota = quota_of(root / controllers / group);
      if (quota > 0) smallest = smallest > 0 ? std::min(smallest, quota) : quota;
      if (group.empty()) break;
    }
  }
  return smallest;
}

}  // namespace dekoder
