// SPDX-License-Identifier: Apache-2.0
#include "io/files/fault_point.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <string>

namespace dekoder {

namespace {

/// `wanted`: <name>[@<n>][!<effect>]; `passed`: how often its point was passed.
bool meet_fault(std::string_view name, std::string_view wanted, std::atomic<long>& passed) {
  const std::string_view point = wanted.substr(0, wanted.find('!')),
                         effect = wanted.substr(std::min(point.size() + 1, wanted.size()));
  const std::size_t at = point.find('@');
  if (point.substr(0, at) != name) return false;
  const long due = at == std::string_view::npos ? 1 : std::atol(std::string(point.substr(at + 1)).c_str());
  if (++passed != due) return false;
  if (effect == "SPOIL") return true;
  if (effect == "HOLD") return sleep(3), false;
  while (effect == "HANG") pause();
  // To the process: this thread may be one that gets no signals.
  kill(getpid(), effect == "TERM" ? SIGTERM : effect == "STOP" ? SIGSTOP : SIGKILL);
  return false;
}

}  // namespace

bool fault_point(std::string_view name) {
  const char* setting = std::getenv("DEKODER_FAULT");
  if (setting == nullptr) return false;
  static std::array<std::atomic<long>, 8> passed{};
  bool spoilt = false;
  std::string_view rest(setting);
  for (std::size_t i = 0; i < passed.size() && !rest.empty(); ++i) {
    const std::string_view wanted = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(wanted.size() + 1, rest.size()));
    spoilt = meet_fault(name, wanted, passed[i]) || spoilt;
  }
  return spoilt;
}

}  // namespace dekoder
