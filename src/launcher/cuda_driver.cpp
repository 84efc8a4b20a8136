// SPDX-License-Identifier: Apache-2.0
#include "launcher/cuda_driver.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "base/utf8.hpp"

namespace dekoder {

namespace {

/// A function of the driver by its C name; null where it has none.
template <class Function>
Function* function_of(void* driver, const char* name) {
  return reinterpret_cast<Function*>(dlsym(driver, name));
}

std::string not_loaded(std::string_view reason) {
  if (!reason.starts_with("libcuda.so.1: cannot open") || !reason.ends_with("No such file or directory"))
    return fmt::format("the CUDA driver cannot be loaded: {}", excerpt(reason, 300));
  std::error_code ignored;
  if (std::filesystem::exists("/dev/nvidiactl", ignored))
    return "there is a card, /dev/nvidiactl, but no libcuda.so.1; in a container give it the driver (apptainer "
           "--nv, "
           "docker --gpus all), else name its folder in LD_LIBRARY_PATH";
  return "no CUDA driver, libcuda.so.1";
}

/// "cuInit: error 803, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"
std::string failed_call(void* driver, const char* call, int code) {
  const char* name = nullptr;
  if (auto* const name_of = function_of<int(int, const char**)>(driver, "cuGetErrorName"); name_of != nullptr)
    name_of(code, &name);
  return fmt::format("{}: error {}{}{}", call, code, name != nullptr ? ", " : "", name != nullptr ? name : "");
}

CudaDevices ask(void* driver) {
  auto* const init = function_of<int(unsigned)>(driver, "cuInit");
  auto* const count = function_of<int(int*)>(driver, "cuDeviceGetCount");
  auto* const name = function_of<int(char*, int, int)>(driver, "cuDeviceGetName");
  if (init == nullptr || count == nullptr || name == nullptr) return {{}, "libcuda.so.1 is no CUDA driver"};
  if (const int code = init(0); code != 0) return {{}, failed_call(driver, "cuInit", code)};
  int devices = 0;
  if (const int code = count(&devices); code != 0) return {{}, failed_call(driver, "cuDeviceGetCount", code)};
  CudaDevices found{{}, "the CUDA driver counts 0 devices"};
  for (int device = 0; device < devices; ++device) {
    std::array<char, 256> text{};
    found.names.emplace_back(name(text.data(), int(text.size()) - 1, device) == 0 ? text.data() : "without a name");
  }
  return found;
}

}  // namespace

CudaDevices cuda_devices() {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  CudaDevices found = driver != nullptr ? ask(driver) : CudaDevices{{}, not_loaded(dlerror())};
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES"); driver != nullptr && visible != nullptr)
    found.why_none += fmt::format("; CUDA_VISIBLE_DEVICES is '{}'", excerpt(visible));
  return found;
}

}  // namespace dekoder
