// SPDX-License-Identifier: Apache-2.0
// The plug-in's side of the border: Kokkos lives here, and every exception ends here as one message and an exit
// code.
#include <Kokkos_Core.hpp>
#include <cstdio>
#include <exception>

#include "backend/backend_abi.h"
#include "base/cpu_mask.hpp"
#include "base/exit_report.hpp"
#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "commands/commands.hpp"
#include "config/command.hpp"
#include "parallel/failure_meeting.hpp"
#include "parallel/threads.hpp"
#include "tensor/flush_denormals.hpp"
#include "tensor/tensor.hpp"

namespace {

#if defined(KOKKOS_ENABLE_OPENMP)
static_assert(DEKODER_MAX_THREADS == Kokkos::Impl::OpenMPTraits::MAX_THREAD_COUNT);
#endif

dekoder::ExitCode run_here(const char* command_yaml, const dekoder_process* process, int ranks) {
  dekoder::watch_stop_signals(process->stop_signal);
  dekoder::set_process_cpus(dekoder::CpuMask(process->cpus, process->cpus_bytes));
  dekoder::start_openmp(DEKODER_MAX_THREADS);
  Kokkos::InitializationSettings settings;
  if (ranks > 1) settings.set_disable_warnings(true);  // each rank would have its own
  const Kokkos::ScopeGuard kokkos(settings);
  dekoder::flush_denormals(dekoder::ExecSpace());
  return dekoder::run_command(dekoder::command_from_yaml(command_yaml));
}

int run(const char* command_yaml, const dekoder_process* process) {
  const dekoder::Communicator ranks = dekoder::Communicator::world();
  dekoder::set_log_rank(ranks.rank());  // the launcher's log is another one
  const dekoder::FailureMeeting failures(ranks);
  try {
    return static_cast<int>(run_here(command_yaml, process, ranks.size()));
  } catch (...) {
    const dekoder::Failure failure = dekoder::failure_of(std::current_exception());
    std::fflush(stdout);
    failures.end(failure);
    return static_cast<int>(failure.code);
  }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const dekoder_backend* dekoder_backend_entry() {
  static const dekoder_backend backend{DEKODER_BACKEND_ABI, run};
  return &backend;
}
