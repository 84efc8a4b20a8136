// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace dekoder {

/// What the CUDA driver says of this machine.
struct CudaDevices {
  std::vector<std::string> names;  ///< by number, e.g. "NVIDIA H100 80GB HBM3"
  std::string why_none;  ///< where there are none: what is missing, or the driver's error by number and name
};

/// Asks the driver itself, libcuda.so.1: a plug-in that links CUDA does not even load where it is missing, and
/// cannot be unloaded.
CudaDevices cuda_devices();

}  // namespace dekoder
