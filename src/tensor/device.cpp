// SPDX-License-Identifier: Apache-2.0
#include "tensor/device.hpp"

#include "tensor/tensor.hpp"

namespace dekoder {

std::string device_id() {
#if defined(DEKODER_BACKEND_CUDA)
  char text[32] = {};
  return cudaDeviceGetPCIBusId(text, sizeof(text), ExecSpace().cuda_device()) == cudaSuccess ? text : "unknown";
#else
  return "";
#endif
}

}  // namespace dekoder
