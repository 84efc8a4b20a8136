// SPDX-License-Identifier: Apache-2.0
#include "tensor/device.hpp"

#include <cstdlib>
#include <numeric>
#include <sstream>
#include <string_view>

#include "base/error.hpp"
#include "base/rank_launcher.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

namespace {

/// Of a variable that the launcher has checked.
std::vector<int> numbers_in(const char* text) {
  std::vector<int> numbers;
  std::istringstream list(text);
  for (std::string number; std::getline(list, number, ',');) numbers.push_back(std::atoi(number.c_str()));
  return numbers;
}

void require_gpu(const char* variable, int number, std::size_t gpus) {
  if (std::size_t(number) < gpus) return;
  throw ConfigError(
      "environment variable {} is '{}'; expected numbers from 0 to {}, as there are {} GPUs; set it so, "
      "or unset it",
      variable, std::getenv(variable), gpus - 1, gpus);
}

}  // namespace

GpuChoice choose_gpu(int gpus) {
  GpuChoice choice;
  if (const char* list = std::getenv("KOKKOS_VISIBLE_DEVICES")) {
    choice.visible = numbers_in(list);
    for (const int number : choice.visible) require_gpu("KOKKOS_VISIBLE_DEVICES", number, std::size_t(gpus));
  } else {
    choice.visible.resize(std::size_t(gpus));
    std::iota(choice.visible.begin(), choice.visible.end(), 0);
  }
  const char* mapping = std::getenv("KOKKOS_MAP_DEVICE_ID_BY");
  if (const char* device = std::getenv("KOKKOS_DEVICE_ID")) {
    choice.index = std::atoi(device);
    require_gpu("KOKKOS_DEVICE_ID", *choice.index, choice.visible.size());
  } else if (mapping == nullptr || mapping != std::string_view("random")) {
    choice.index = announced_local_rank() % int(choice.visible.size());
  }
  return choice;
}

std::string device_id() {
#if defined(DEKODER_BACKEND_CUDA)
  char text[32] = {};
  return cudaDeviceGetPCIBusId(text, sizeof(text), ExecSpace().cuda_device()) == cudaSuccess ? text : "unknown";
#else
  return "";
#endif
}

}  // namespace dekoder
