// SPDX-License-Identifier: Apache-2.0
// The plug-in's side of the border: Kokkos lives here, and every exception ends here as one message and an exit
// code.
#include <Kokkos_Core.hpp>

#include "backend/backend_abi.h"
#include "base/cpu_mask.hpp"
#include "base/exit_report.hpp"
#include "base/stop_signal.hpp"
#include "commands/commands.hpp"
#include "config/command.hpp"
#include "parallel/threads.hpp"
#include "tensor/flush_denormals.hpp"
#include "tensor/tensor.hpp"

namespace {

#if defined(KOKKOS_ENABLE_OPENMP)
static_assert(DEKODER_MAX_THREADS == Kokkos::Impl::OpenMPTraits::MAX_THREAD_COUNT);
#endif

int run(const char* command_yaml, const dekoder_process* process) {
  try {
    dekoder::watch_stop_signals(process->stop_signal);
    dekoder::set_process_cpus(dekoder::CpuMask(process->cpus, process->cpus_bytes));
    dekoder::start_openmp(DEKODER_MAX_THREADS);
    const Kokkos::ScopeGuard kokkos;
    dekoder::flush_denormals(dekoder::ExecSpace());
    return static_cast<int>(dekoder::run_command(dekoder::command_from_yaml(command_yaml)));
  } catch (...) {
    return static_cast<int>(dekoder::report_current_exception());
  }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const dekoder_backend* dekoder_backend_entry() {
  static const dekoder_backend backend{DEKODER_BACKEND_ABI, run};
  return &backend;
}
