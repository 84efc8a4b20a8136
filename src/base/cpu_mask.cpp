// SPDX-License-Identifier: Apache-2.0
#include "base/cpu_mask.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>
#include <string>

namespace dekoder {

namespace {

std::optional<CpuMask> given_cpus;

/// Linux' list of the CPUs of one core, such as "0,64": the same text for each of them. Where the system does not
/// tell, every CPU is a core.
std::string core_of(int cpu) {
  std::ifstream file(fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
  std::string siblings;
  return std::getline(file, siblings) ? siblings : std::to_string(cpu);
}

}  // namespace

CpuMask CpuMask::of_this_thread() {
  CpuMask mask;
  if (sched_getaffinity(0, sizeof(mask.words_), reinterpret_cast<cpu_set_t*>(mask.words_.data())) != 0)
    mask.words_ = {};
  return mask;
}

CpuMask::CpuMask(const cpu_set_t* set, std::size_t bytes) {
  std::memcpy(words_.data(), set, std::min(bytes, sizeof(words_)));
}

void CpuMask::give_to_this_thread() const {
  if (cpus() > 0) sched_setaffinity(0, bytes(), set());
}

int CpuMask::cpus() const {
  return CPU_COUNT_S(bytes(), set());
}

int CpuMask::cores() const {
  std::set<std::string> cores;
  for (int cpu = 0; cpu < int(8 * bytes()); ++cpu)
    if (CPU_ISSET_S(cpu, bytes(), set())) cores.insert(core_of(cpu));
  return int(cores.size());
}

int online_cores() {
  // "0-3,8": the mask of a thread would not tell, as it may be smaller.
  std::ifstream file("/sys/devices/system/cpu/online");
  std::set<std::string> cores;
  for (std::string range; std::getline(file, range, ',');) {
    int first = 0, last = 0;
    const int read = std::sscanf(range.c_str(), "%d-%d", &first, &last);
    if (read < 1) continue;
    for (int cpu = first; cpu <= (read == 2 ? last : first); ++cpu) cores.insert(core_of(cpu));
  }
  return std::max(int(cores.size()), 1);
}

CpuMask process_cpus() {
  return given_cpus ? *given_cpus : CpuMask::of_this_thread();
}

void set_process_cpus(const CpuMask& cpus) {
  given_cpus = cpus;
}

}  // namespace dekoder
