// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <csignal>

#include "base/cpu_mask.hpp"

namespace dekoder {

/// What this process was given by the one that started it, as it was before any library's constructor ran: that of
/// UCX, which comes with Open MPI, takes signals for itself, and OpenMP binds the first thread to a core. The
/// early_signals are blocked from then on, until handle_signals, and a standard stream that was closed is
/// /dev/null.
struct ProcessStart {
  std::array<struct sigaction, NSIG> signals;  ///< by number; default or ignored
  CpuMask cpus;
};

const ProcessStart& process_start();

/// Those that ask a training to save: one that comes before its handler stands must not end the process.
sigset_t early_signals();

}  // namespace dekoder
