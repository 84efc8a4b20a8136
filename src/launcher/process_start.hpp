// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <csignal>

#include "base/cpu_mask.hpp"

namespace dekoder {

/// Signals that ask a training to save and end. One that comes early waits, blocked, for handle_signals.
inline constexpr int stop_signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGXCPU, SIGHUP};

/// What this process was given by the one that started it, as it was before any library's constructor ran: that of
/// UCX, which comes with Open MPI, takes signals for itself, and OpenMP binds the first thread to a core. The
/// stop_signals are blocked from then on, until handle_signals; a standard stream that was closed is /dev/null.
struct ProcessStart {
  std::array<struct sigaction, NSIG> signals;  ///< by number; default or ignored
  sigset_t blocked;
  CpuMask cpus;
};

const ProcessStart& process_start();

}  // namespace dekoder
