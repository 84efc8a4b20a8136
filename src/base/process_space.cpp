// SPDX-License-Identifier: Apache-2.0
#include "base/process_space.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <sstream>

#include "base/decimal.hpp"

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

ProcessStat process_stat(const std::string& process) {
  std::ifstream file("/proc/" + process + "/stat");
  std::string text;
  std::getline(file, text);
  const std::size_t name_end = text.rfind(')');  // the name, field 2, may hold spaces
  ProcessStat stat;
  if (name_end == std::string::npos) return stat;
  std::istringstream fields(text.substr(name_end + 1));
  fields >> stat.state;
  for (int i = 4; i <= 22; ++i) fields >> stat.start;
  return stat;
}

double process_age() {
  long ticks = 0;
  timespec now = {};
  if (read_decimal(process_stat("self").start, ticks) != Decimal::read ||
      ::clock_gettime(CLOCK_BOOTTIME, &now) != 0)
    return 0;
  const double begin = double(ticks) / double(::sysconf(_SC_CLK_TCK));
  return std::max(0.0, double(now.tv_sec) + 1e-9 * double(now.tv_nsec) - begin);
}

}  // namespace dekoder
