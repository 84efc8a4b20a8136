// SPDX-License-Identifier: Apache-2.0
#include "base/stop_signal.hpp"

#include <csignal>

namespace dekoder {

namespace {

int (*stop_asked)() = [] { return 0; };

}  // namespace

void watch_stop_signals(int (*asked)()) {
  stop_asked = asked;
}

int stop_requested() {
  return stop_asked();
}

std::string signal_name(int number) {
  switch (number) {
    case SIGTERM:
      return "SIGTERM";
    case SIGINT:
      return "SIGINT";
    case SIGUSR1:
      return "SIGUSR1";
    case SIGUSR2:
      return "SIGUSR2";
    case SIGXCPU:
      return "SIGXCPU";
    case SIGHUP:
      return "SIGHUP";
    default:
      return "signal " + std::to_string(number);
  }
}

}  // namespace dekoder
