// SPDX-License-Identifier: Apache-2.0
#include "launcher/backend_loader.hpp"

#include <dlfcn.h>
#include <fmt/ranges.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <vector>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "launcher/cuda_driver.hpp"
#include "launcher/library_file.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

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

struct Plugin {
  fs::path file;       ///< empty where no folder has it
  std::string places;  ///< the folders that were looked at, each with what kept it from being read
};

std::string plugin_name(const std::string& backend, const std::string& precision) {
  return fmt::format("libdekoder_{}_{}.so", backend, precision);
}

Plugin find_plugin(const std::string& name) {
  Plugin found;
  for (const fs::path& folder : search_path()) {
    std::error_code failed;
    const fs::path file = folder / name;
    const fs::file_status status = fs::status(file, failed);
    if (fs::exists(status)) return {file, {}};
    found.places += (found.places.empty() ? "" : ", ") + folder.string();
    if (!fs::status_known(status)) found.places += " (" + failed.message() + ")";
  }
  return found;
}

std::string missing(const std::string& name, const Plugin& plugin) {
  return fmt::format("{} is in none of {}", name, plugin.places);
}

const dekoder_backend& open_plugin(const fs::path& file) {
  check_library_file(file);
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

struct Choice {
  std::string backend;
  std::string description;  ///< LoadedBackend's
};

Choice choose(const std::string& wish, const std::string& precision, bool computes) {
  if (wish == "openmp") return {"openmp", "openmp"};
  if (wish == "auto" && !computes && !find_plugin(plugin_name("openmp", precision)).file.empty())
    return {"openmp", "openmp (auto: only files are read)"};
  const CudaDevices devices = cuda_devices();
  if (devices.names.empty()) {
    if (wish == "auto") return {"openmp", fmt::format("openmp (auto: {})", devices.why_none)};
    throw ConfigError(
        "--backend cuda: the CUDA driver (libcuda.so.1) reports no device here; use --backend openmp, or start on "
        "a "
        "GPU node ({})",
        devices.why_none);
  }
  const std::string name = plugin_name("cuda", precision);
  if (const Plugin plugin = find_plugin(name); wish == "auto" && plugin.file.empty())
    return {"openmp", fmt::format("openmp (auto: {})", excerpt(missing(name, plugin), 1000))};
  return {"cuda", fmt::format("cuda; devices: {}", fmt::join(devices.names, ", "))};
}

}  // namespace

LoadedBackend load_backend(const std::string& backend, const std::string& precision, bool computes) {
  if (backend != "auto" && backend != "openmp" && backend != "cuda")
    throw ConfigError("--backend is '{}'; expected auto, openmp or cuda", excerpt(backend));
  const Choice choice = choose(backend, precision, computes);
  const std::string name = plugin_name(choice.backend, precision);
  const Plugin plugin = find_plugin(name);
  if (plugin.file.empty())
    throw ConfigError("--backend {}: {}; build it (cmake --preset {}) or set DEKODER_PLUGIN_PATH", choice.backend,
                      missing(name, plugin), choice.backend);
  return {&open_plugin(plugin.file), (precision == "float" ? "" : precision + "; ") + choice.description};
}

}  // namespace dekoder
