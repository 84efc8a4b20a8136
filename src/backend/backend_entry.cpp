// SPDX-License-Identifier: Apache-2.0
// The plug-in's side of the border: Kokkos lives here, and every exception ends here as one message and an exit
// code.
#include <Kokkos_Core.hpp>
#include <cstdio>
#include <exception>
#include <memory>
#include <vector>

#include "backend/backend_abi.h"
#include "base/cpu_mask.hpp"
#include "base/error.hpp"
#include "base/exit_report.hpp"
#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "commands/commands.hpp"
#include "config/command.hpp"
#include "parallel/failure_meeting.hpp"
#include "parallel/threads.hpp"
#include "parallel/watchdog.hpp"
#include "tensor/device.hpp"
#include "tensor/flush_denormals.hpp"
#include "tensor/tensor.hpp"

#if defined(DEKODER_BACKEND_CUDA)
#include <cuda.h>
#endif

namespace {

#if defined(KOKKOS_ENABLE_OPENMP)
static_assert(DEKODER_MAX_THREADS == Kokkos::Impl::OpenMPTraits::MAX_THREAD_COUNT);
#endif

#if defined(DEKODER_BACKEND_CUDA)
/// Throws ConfigError where a device that this process takes, or may draw, is older than the oldest that was
/// compiled for: Kokkos would abort. What the driver does not tell is left to Kokkos.
void require_device(const std::vector<int>& numbers) {
  constexpr int compiled[] = {__CUDA_ARCH_LIST__};  // ascending, 900 for compute capability 9.0
  for (const int number : numbers) {
    CUdevice device = 0;
    int major = 0, minor = 0;
    if (cuDeviceGet(&device, number) != CUDA_SUCCESS ||
        cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device) != CUDA_SUCCESS ||
        cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device) != CUDA_SUCCESS)
      continue;
    if (100 * major + 10 * minor < compiled[0])
      throw dekoder::ConfigError(
          "--backend cuda: GPU {} has compute capability {}.{}; this plug-in was compiled for {}.{} and later: "
          "choose another GPU (CUDA_VISIBLE_DEVICES), build Kokkos and the plug-in for this one, or use --backend "
          "openmp",
          number, major, minor, compiled[0] / 100, compiled[0] / 10 % 10);
  }
}

/// Names to Kokkos the GPU that this process takes.
void take_device(Kokkos::InitializationSettings& settings) {
  int gpus = 0;
  if (cuInit(0) != CUDA_SUCCESS || cuDeviceGetCount(&gpus) != CUDA_SUCCESS || gpus == 0) return;
  const dekoder::GpuChoice choice = dekoder::choose_gpu(gpus);
  require_device(choice.index ? std::vector{choice.visible[std::size_t(*choice.index)]} : choice.visible);
  if (choice.index) settings.set_device_id(*choice.index);
}
#endif

/// Kokkos' runtime, until the result goes. Where it does not start on a GPU the machine is at fault, e.g. the
/// driver is too old or others have the GPU: throws ConfigError.
std::unique_ptr<Kokkos::ScopeGuard> start_kokkos(Kokkos::InitializationSettings settings) {
#if defined(DEKODER_BACKEND_CUDA)
  take_device(settings);
  try {
    return std::make_unique<Kokkos::ScopeGuard>(settings);
  } catch (const std::exception& error) {
    throw dekoder::ConfigError(
        "--backend cuda: the GPU cannot be used: {}; see what nvidia-smi says of its driver and of who has it, or "
        "use --backend openmp",
        error.what());
  }
#else
  return std::make_unique<Kokkos::ScopeGuard>(settings);
#endif
}

dekoder::ExitCode run_here(const char* command_yaml, const dekoder_process* process,
                           const dekoder::Communicator& ranks) {
  dekoder::watch_stop_signals(process->stop_signal);
  dekoder::set_process_cpus(dekoder::CpuMask(process->cpus, process->cpus_bytes));
  dekoder::start_openmp(DEKODER_MAX_THREADS);
  Kokkos::InitializationSettings settings;
  if (ranks.size() > 1) settings.set_disable_warnings(true);  // each rank would have its own
  const auto kokkos = start_kokkos(settings);
  dekoder::flush_denormals(dekoder::ExecSpace());
  const dekoder::Watchdog watchdog(ranks);
  return dekoder::run_command(dekoder::command_from_yaml(command_yaml));
}

int run(const char* command_yaml, const dekoder_process* process) {
  const dekoder::Communicator ranks = dekoder::Communicator::world();
  dekoder::set_log_rank(ranks.rank());  // the launcher's log is another one
  const dekoder::FailureMeeting failures(ranks);
  try {
    return static_cast<int>(run_here(command_yaml, process, ranks));
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
