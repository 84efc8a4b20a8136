// SPDX-License-Identifier: Apache-2.0
#include "base/stop_signal.hpp"

#include <unistd.h>

#include <string_view>

namespace dekoder {

namespace {

volatile std::sig_atomic_t own_flag = 0;
const volatile std::sig_atomic_t* watched_flag = &own_flag;

void on_signal(int signal) {
  if (own_flag == SIGINT && signal == SIGINT) {
    constexpr std::string_view text = "\ndekoder: second interrupt: ending at once; the last checkpoint stands\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, text.data(), text.size());
    _exit(130);
  }
  if (own_flag == 0 || signal == SIGINT) own_flag = signal;
}

}  // namespace

void install_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
}

const volatile std::sig_atomic_t* stop_flag() {
  return &own_flag;
}
void watch_stop_flag(const volatile std::sig_atomic_t* flag) {
  watched_flag = flag;
}
int stop_requested() {
  return *watched_flag;
}

}  // namespace dekoder
