// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "config/run_config.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// What `dekoder initial-values` prints, one JSON object on one line: "config", the configuration with every key
/// and default as YAML, and "tensors" with "name", "shape" and "digest" of each (XXH64 of its values' bytes, 16
/// hexadecimal digits). Two runs whose digests of a tensor are equal begin with the same bits in it. Draws the
/// values as training does; the vocabulary must be set.
std::string initial_values_json(const ExecSpace& exec, const RunConfig& config);

}  // namespace dekoder
