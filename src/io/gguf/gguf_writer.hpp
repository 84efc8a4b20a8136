// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "io/weights/tensor_file.hpp"

namespace dekoder {

using GgufValue = std::variant<std::uint32_t, float, bool, std::string, std::vector<std::uint8_t>,
                               std::vector<std::int32_t>, std::vector<float>, std::vector<std::string>>;
struct GgufEntry {
  std::string key;
  GgufValue value;
};
using GgufMetadata = std::vector<GgufEntry>;

/// Writes one file of version 3 of GGUF, the format of ggml and llama.cpp: metadata, then the tensors in their
/// order, each at a multiple of 32 bytes. Throws DataError as write_tensor_file.
void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                std::span<const TensorToWrite> tensors);

}  // namespace dekoder
