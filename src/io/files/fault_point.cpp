// SPDX-License-Identifier: Apache-2.0
#include "io/files/fault_point.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <string>

namespace dekoder {

bool fault_point(std::string_view name) {
  const char* setting = std::getenv("DEKODER_FAULT");
  if (setting == nullptr) return false;
  const std::string_view wanted(setting);
  const std::string_view point = wanted.substr(0, wanted.find('!')),
                         effect = wanted.substr(std::min(point.size() + 1, wanted.size()));
  const std::size_t at = point.find('@');
  if (point.substr(0, at) != name) return false;
  static std::atomic<long> passed = 0;  // one point is wanted per process
  const long due = at == std::string_view::npos ? 1 : std::atol(std::string(point.substr(at + 1)).c_str());
  if (++passed != due) return false;
  if (effect == "SPOIL") return true;
  if (effect == "HOLD") return sleep(3), false;
  while (effect == "HANG") pause();
  // To the process: this thread may be one that gets no signals.
  kill(getpid(), effect == "TERM" ? SIGTERM : effect == "STOP" ? SIGSTOP : SIGKILL);
  return false;
}

}  // namespace dekoder
