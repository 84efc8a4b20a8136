// SPDX-License-Identifier: Apache-2.0
// The plug-in's side of the border: Kokkos lives here, and every exception ends here as one message and an exit
// code.
#include <Kokkos_Core.hpp>
#include <cstdio>
#include <cstring>
#include <new>

#include "backend/backend_abi.h"
#include "base/error.hpp"
#include "base/stop_signal.hpp"
#include "config/command.hpp"
#include "tensor/flush_denormals.hpp"
#include "tensor/tensor.hpp"
#include "train/commands.hpp"

namespace {

int report(const char* kind, const char* message, dekoder::ExitCode code) {
  std::fflush(stdout);
  std::fprintf(stderr, "dekoder: %s%s\n", kind, message);
  return static_cast<int>(code);
}

constexpr const char* out_of_memory =
    "out of memory; lower training.micro_batch (or model.context); `dekoder describe` shows the terms";

int run(const char* command_yaml, const volatile sig_atomic_t* stop_flag) {
  using dekoder::ExitCode;
  try {
    dekoder::watch_stop_flag(stop_flag);
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

#if defined(DEKODER_BACKEND_CUDA)
constexpr const char* backend_name = "cuda";
#else
constexpr const char* backend_name = "openmp";
#endif

}  // namespace

extern "C" __attribute__((visibility("default"))) const dekoder_backend* dekoder_backend_v1() {
  static const dekoder_backend backend{DEKODER_BACKEND_ABI, backend_name, dekoder::real_name, run};
  return &backend;
}
