// SPDX-License-Identifier: Apache-2.0
#include "launcher/backend_loader.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/utf8.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// Devices that the CUDA driver reports; 0 without a driver. Asks the driver itself: a plug-in that links CUDA does
/// not even load where the driver is missing, and cannot be unloaded.
int cuda_devices() {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return 0;
  using Init = int (*)(unsigned);
  using Count = int (*)(int*);
  const auto init = reinterpret_cast<Init>(dlsym(driver, "cuInit"));
  const auto count = reinterpret_cast<Count>(dlsym(driver, "cuDeviceGetCount"));
  int devices = 0;
  if (init == nullptr || count == nullptr || init(0) != 0 || count(&devices) != 0) return 0;
  return devices;
}

/// Beside the executable and in lib/dekoder of its installation, then DEKODER_PLUGIN_PATH. In a folder of
/// jobs/bundle the executable is the carried loader in lib/, and its lib/dekoder holds the plug-ins.
std::vector<fs::path> search_path() {
  std::vector<fs::path> folders;
  std::error_code ignored;
  if (const fs::path self = fs::read_symlink("/proc/self/exe", ignored); !self.empty()) {
    folders.push_back(self.parent_path());
    folders.push_back(self.parent_path().parent_path() / "lib" / "dekoder");
  }
  if (const char* extra = std::getenv("DEKODER_PLUGIN_PATH"); extra != nullptr) {
    std::istringstream list(extra);
    for (std::string folder; std::getline(list, folder, ':');)
      if (!folder.empty()) folders.emplace_back(folder);
  }
  return folders;
}

fs::path find_plugin(const std::string& backend) {
  for (const fs::path& folder : search_path())
    if (const fs::path file = folder / ("libdekoder_" + backend + "_float.so"); fs::exists(file)) return file;
  return {};
}

const dekoder_backend& open_plugin(const fs::path& file) {
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw ConfigError("{}: cannot be loaded: {}; expected the plug-in of this build and its libraries",
                      file.string(), dlerror());
  const auto entry = reinterpret_cast<dekoder_backend_function>(dlsym(library, DEKODER_BACKEND_SYMBOL));
  if (entry == nullptr)
    throw ConfigError("{}: is not a plug-in of dekoder (it exports no {}); build this version's plug-ins",
                      file.string(), DEKODER_BACKEND_SYMBOL);
  const dekoder_backend* backend = entry();
  if (backend->abi != DEKODER_BACKEND_ABI)
    throw ConfigError("{}: is of plug-in version {}; expected {}: build launcher and plug-ins together",
                      file.string(), backend->abi, DEKODER_BACKEND_ABI);
  return *backend;
}

}  // namespace

const dekoder_backend& load_backend(const std::string& backend) {
  if (backend != "auto" && backend != "openmp" && backend != "cuda")
    throw ConfigError("--backend is '{}'; expected auto, openmp or cuda", excerpt(backend));
  std::string chosen = backend;
  if (backend == "auto") chosen = cuda_devices() > 0 && !find_plugin("cuda").empty() ? "cuda" : "openmp";
  if (backend == "cuda" && cuda_devices() == 0)
    throw ConfigError(
        "--backend cuda: the CUDA driver (libcuda.so.1) reports no device here; use --backend openmp, or start on "
        "a GPU node");
  const fs::path file = find_plugin(chosen);
  if (file.empty()) {
    std::string places;
    for (const fs::path& folder : search_path()) places += (places.empty() ? "" : ", ") + folder.string();
    throw ConfigError(
        "--backend {}: libdekoder_{}_float.so is in none of {}; build it (cmake --preset {}) or set "
        "DEKODER_PLUGIN_PATH",
        chosen, chosen, places, chosen);
  }
  return open_plugin(file);
}

}  // namespace dekoder
