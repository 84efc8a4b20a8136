// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "io/weights/tensor_file.hpp"

namespace dekoder {

/// As transformers cuts models: 5 GB.
inline constexpr std::uint64_t shard_bytes = 5'000'000'000;

/// Writes model.safetensors, or where the elements take more than `most_bytes` shards
/// model-00001-of-00003.safetensors, each of at most so many but for a single larger tensor, and then their index.
/// The tensors keep their order. Throws DataError as write_tensor_file.
void write_safetensors(const std::filesystem::path& folder, std::span<const TensorToWrite> tensors,
                       std::uint64_t most_bytes = shard_bytes);

}  // namespace dekoder
