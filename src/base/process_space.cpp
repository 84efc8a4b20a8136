// SPDX-License-Identifier: Apache-2.0
#include "base/process_space.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

namespace dekoder {

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof(name) - 1);
  return name;
}

std::string boot_id() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  return id.empty() ? "-" : id;
}

std::string pid_namespace() {
  struct stat status = {};
  return ::stat("/proc/self/ns/pid", &status) == 0 ? std::to_string(status.st_ino) : "-";
}

}  // namespace dekoder
