// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "config/command.hpp"

namespace dekoder {

/// Begins a run from the folder of a model of transformers: a checkpoint of step 0, config.yaml and status. Returns
/// what to print. Throws DataError and ConfigError, and leaves nothing of the run then.
std::string import_model(const Command& command);

}  // namespace dekoder
