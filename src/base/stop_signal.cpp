// SPDX-License-Identifier: Apache-2.0
#include "base/stop_signal.hpp"

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

}  // namespace dekoder
