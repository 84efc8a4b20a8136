// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/cpu_mask.hpp"

namespace dekoder {

/// Checks the environment variables that OpenMP, Kokkos and MPI read. Of a wrong value OpenMP goes on with another
/// number of threads and Kokkos aborts. Throws ConfigError naming the variable.
void check_environment();

/// Throws ConfigError where a limit of address space leaves no room for libraries and threads on `cpus`: OpenBLAS,
/// when it loads, tries for ever to get it.
void check_address_space(const CpuMask& cpus);

/// Tells OpenMP, which reads it when it loads, to bind its threads to cores where they use all cores of `cpus`, the
/// mask of the process: two runs with fewer threads would be bound to the same cores. What the user says of binding
/// (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY, KMP_AFFINITY) stands.
void bind_threads(const CpuMask& cpus);

}  // namespace dekoder
