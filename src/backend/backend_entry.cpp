// SPDX-License-Identifier: Apache-2.0
// The plug-in's side of the border: Kokkos lives here, and every exception ends here as one message and an exit
// code.
#include <omp.h>

#include <Kokkos_Core.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "backend/backend_abi.h"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "commands/commands.hpp"
#include "config/command.hpp"
#include "tensor/flush_denormals.hpp"
#include "tensor/tensor.hpp"

namespace {

int report(const char* kind, const char* message, dekoder::ExitCode code) {
  std::fflush(stdout);
  dekoder::log_line(std::string(kind) + message);
  return static_cast<int>(code);
}

#if defined(KOKKOS_ENABLE_OPENMP)
static_assert(DEKODER_MAX_THREADS == Kokkos::Impl::OpenMPTraits::MAX_THREAD_COUNT);
#endif

/// Kokkos and BLAS divide work among the threads that they ask OpenMP for, and a thread that does not come leaves
/// its share undone: OpenMP must give all of them. Before Kokkos starts; the launcher has checked
/// KOKKOS_NUM_THREADS.
void check_threads() {
  omp_set_dynamic(0);  // by OMP_DYNAMIC it would give fewer on a busy machine
  const char* of_kokkos = std::getenv("KOKKOS_NUM_THREADS");
  const int asked = of_kokkos != nullptr ? std::atoi(of_kokkos) : omp_get_max_threads();
  if (asked > DEKODER_MAX_THREADS)
    throw dekoder::ConfigError("OpenMP would start {} threads; expected at most {}; set OMP_NUM_THREADS", asked,
                               DEKODER_MAX_THREADS);
  int given = 0;
#pragma omp parallel num_threads(asked) reduction(+ : given)
  ++given;
  if (given != asked)
    throw dekoder::ConfigError(
        "OpenMP starts {} of {} threads; expected all; unset OMP_THREAD_LIMIT and OMP_MAX_ACTIVE_LEVELS, or set "
        "OMP_NUM_THREADS to {}",
        given, asked, given);
}

constexpr const char* out_of_memory =
    "out of memory; lower training.micro_batch (or model.context); `dekoder describe` shows the terms";

int run(const char* command_yaml, const volatile sig_atomic_t* stop_flag) {
  using dekoder::ExitCode;
  try {
    dekoder::watch_stop_flag(stop_flag);
    check_threads();
    const Kokkos::ScopeGuard kokkos;
    dekoder::flush_denormals(dekoder::ExecSpace());
    return static_cast<int>(dekoder::run_command(dekoder::command_from_yaml(command_yaml)));
  } catch (const dekoder::UserError& error) {
    return report("error: ", error.what(), error.code());
  } catch (const std::bad_alloc&) {
    return report("error: ", out_of_memory, ExitCode::usage);
  } catch (const std::exception& error) {
    // Kokkos reports a failed allocation as a runtime_error.
    if (std::strstr(error.what(), "allocate") != nullptr) return report("error: ", out_of_memory, ExitCode::usage);
    return report("internal error (please report it): ", error.what(), ExitCode::internal);
  }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const dekoder_backend* dekoder_backend_entry() {
  static const dekoder_backend backend{DEKODER_BACKEND_ABI, run};
  return &backend;
}
