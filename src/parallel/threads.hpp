// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace dekoder {

/// Where the threads of a run are.
struct ThreadFacts {
  int threads;          ///< that compute: OpenMP's
  int cpus, cores;      ///< that the process was given; a core may have several CPUs (hardware threads)
  int machine_cores;    ///< switched on
  std::string binding;  ///< OMP_PROC_BIND as OpenMP took it: false, true, primary, close or spread
};
ThreadFacts thread_facts();

/// Starts OpenMP's threads, as many as Kokkos and BLAS will divide work among, before Kokkos starts: a thread that
/// does not come would leave its share undone. Throws ConfigError, naming limit and remedy, where there would be
/// more than `most`, or fewer than were asked for.
void start_openmp(int most);

/// Logs one line: threads, cores, binding; and a warning where threads share cores or less CPU time than they are
/// (cpu_quota), or a launcher gave one core alone.
void log_threads();

}  // namespace dekoder
