// SPDX-License-Identifier: Apache-2.0
#include "io/files/fault_point.hpp"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>

namespace dekoder {

bool fault_point(std::string_view name) {
  const char* setting = std::getenv("DEKODER_FAULT");
  if (setting == nullptr) return false;
  std::string_view wanted(setting);
  int signal = SIGKILL;
  if (wanted.ends_with("!TERM")) {
    signal = SIGTERM;
    wanted.remove_suffix(5);
  }
  const bool spoils = wanted.ends_with("!SPOIL"), holds = wanted.ends_with("!HOLD");
  if (spoils || holds) wanted.remove_suffix(spoils ? 6 : 5);
  const std::size_t at = wanted.find('@');
  if (wanted.substr(0, at) != name) return false;
  static std::atomic<long> passed = 0;  // one point is wanted per process
  const long due = at == std::string_view::npos ? 1 : std::atol(std::string(wanted.substr(at + 1)).c_str());
  if (++passed != due) return false;
  if (holds)
    std::this_thread::sleep_for(std::chrono::seconds(3));
  else if (!spoils)
    kill(getpid(), signal);  // the process, as this thread may be one that gets no signals
  return spoils;
}

}  // namespace dekoder
