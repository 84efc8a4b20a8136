// SPDX-License-Identifier: Apache-2.0
#include "tensor/flush_denormals.hpp"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace dekoder {

void flush_denormals([[maybe_unused]] const ExecSpace& exec) {
#if defined(__SSE__)
  constexpr unsigned flush_to_zero = 0x8000, denormals_are_zero = 0x0040;
  if constexpr (device_is_host) {
    // The team that Kokkos' own parallel regions get: the runtime keeps its threads, and MXCSR is per thread.
#pragma omp parallel num_threads(exec.concurrency())
    _mm_setcsr(_mm_getcsr() | flush_to_zero | denormals_are_zero);
  } else {
    _mm_setcsr(_mm_getcsr() | flush_to_zero | denormals_are_zero);
  }
#endif
}

}  // namespace dekoder
