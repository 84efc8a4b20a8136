// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace dekoder {

/// Checks the environment variables that OpenMP and Kokkos read once a plug-in is loaded. Of a wrong value OpenMP
/// goes on with another number of threads and Kokkos aborts. Throws ConfigError naming the variable.
void check_environment();

/// Threads stay on their cores unless the user or the job said otherwise; read by the OpenMP runtime when it loads.
void pin_threads();

}  // namespace dekoder
