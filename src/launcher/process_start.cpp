// SPDX-License-Identifier: Apache-2.0
#include "launcher/process_start.hpp"

#include <fcntl.h>

#include <cerrno>
#include <csignal>

namespace dekoder {

namespace {

constinit ProcessStart start{};

void record() {
  for (int signal = 1; signal < NSIG; ++signal)
    sigaction(signal, nullptr, &start.signals[static_cast<std::size_t>(signal)]);
  start.cpus = CpuMask::of_this_thread();
  std::signal(SIGXFSZ, SIG_IGN);  // MPI writes files as it starts, before handle_signals
  sigset_t early;
  sigemptyset(&early);
  for (const int signal : stop_signals) sigaddset(&early, signal);
  sigprocmask(SIG_BLOCK, &early, &start.blocked);
  // A file of the run that took the place of a closed standard stream would get what is meant for the stream. What
  // stands in for standard output is for reading, so that writing to it still fails.
  for (int stream = 0; stream < 3; ++stream)
    if (fcntl(stream, F_GETFD) < 0 && errno == EBADF) open("/dev/null", stream == 2 ? O_WRONLY : O_RDONLY);
}

// The executable's own .preinit_array runs before the constructors of all libraries.
__attribute__((section(".preinit_array"), used)) void (*const record_first)() = record;

}  // namespace

const ProcessStart& process_start() {
  return start;
}

}  // namespace dekoder
