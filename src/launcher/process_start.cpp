// SPDX-License-Identifier: Apache-2.0
#include "launcher/process_start.hpp"

namespace dekoder {

namespace {

constinit ProcessStart start{};

void record() {
  for (int signal = 1; signal < NSIG; ++signal)
    sigaction(signal, nullptr, &start.signals[static_cast<std::size_t>(signal)]);
  start.cpus = CpuMask::of_this_thread();
  // UCX takes it and does something of its own with it. One that comes early waits for handle_signals.
  sigset_t hangup;
  sigemptyset(&hangup);
  sigaddset(&hangup, SIGHUP);
  sigprocmask(SIG_BLOCK, &hangup, nullptr);
}

// The executable's own .preinit_array runs before the constructors of all libraries.
__attribute__((section(".preinit_array"), used)) void (*const record_first)() = record;

}  // namespace

const ProcessStart& process_start() {
  return start;
}

}  // namespace dekoder
