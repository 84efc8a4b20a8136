// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "backend/backend_abi.h"

namespace dekoder {

struct LoadedBackend {
  const dekoder_backend* plugin;
  /// For the log: "openmp", "cuda; devices: NVIDIA H100" or "openmp (auto: why not cuda)", with "bf16; " in front
  /// where that is the precision.
  std::string description;
};

/// Opens exactly one plug-in, libdekoder_<backend>_<precision>.so, and checks that it is whole and of this build.
/// `backend` is auto, openmp or cuda; auto takes cuda where the driver has a device and the plug-in is there,
/// and openmp, where it is there, for a command that computes nothing: it leaves the GPUs to those that do.
/// Looked for beside the executable, in ../lib/dekoder and in the folders of DEKODER_PLUGIN_PATH. The plug-in is
/// never closed. Throws ConfigError naming every place and the reason.
LoadedBackend load_backend(const std::string& backend, const std::string& precision, bool computes);

}  // namespace dekoder
