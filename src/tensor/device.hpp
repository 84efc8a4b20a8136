// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace dekoder {

/// The GPUs that a process may take, by the driver's numbers, and which of them it takes.
struct GpuChoice {
  std::vector<int> visible;
  std::optional<int> index;  ///< into visible; nothing where Kokkos draws one (KOKKOS_MAP_DEVICE_ID_BY=random)
};

/// Of `gpus` GPUs, at least 1: those that KOKKOS_VISIBLE_DEVICES names, or all; of these number KOKKOS_DEVICE_ID,
/// or else one by the rank within the host, in turn. Throws ConfigError where a variable names one that is not
/// there.
GpuChoice choose_gpu(int gpus);

/// The PCI id of the GPU that the backend computes on, e.g. "0000:41:00.0"; empty on CPUs.
std::string device_id();

}  // namespace dekoder
