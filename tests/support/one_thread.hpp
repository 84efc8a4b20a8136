// SPDX-License-Identifier: Apache-2.0
// The same work on one thread and on all of them.
#pragma once

#include <optional>
#include <vector>

#include "tensor/tensor.hpp"

#if !defined(DEKODER_BACKEND_CUDA)
#include <omp.h>

namespace dekoder::testing {

/// An execution space of one thread; nothing where the whole one has no more, so that there is nothing to compare.
inline std::optional<ExecSpace> one_thread() {
  const ExecSpace all;
  if (all.concurrency() < 2) return std::nullopt;
  omp_set_max_active_levels(2);  // Kokkos partitions only where regions may nest
  return Kokkos::Experimental::partition_space(all, std::vector<int>(std::size_t(all.concurrency()), 1)).front();
}

}  // namespace dekoder::testing
#endif
