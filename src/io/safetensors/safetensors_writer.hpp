// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace dekoder {

/// Numbers of a file's elements; the names are config.json's.
enum class WeightType { float32, bfloat16 };
const char* weight_type_name(WeightType type);

/// A tensor whose elements are asked for when their turn comes, so that one is in memory at a time.
struct TensorToWrite {
  std::string name;
  std::vector<std::uint64_t> shape;
  std::function<void(std::span<float>)> fill;
};

/// As transformers cuts models: 5 GB.
inline constexpr std::uint64_t shard_bytes = 5'000'000'000;

/// Writes model.safetensors, or where the elements take more than `most_bytes` shards
/// model-00001-of-00003.safetensors, each of at most so many but for a single larger tensor, and then their index.
/// Each file is a PendingFile, read back against its digest before it takes its name. The tensors keep their order.
/// Throws DataError as PendingFile.
void write_safetensors(const std::filesystem::path& folder, std::span<const TensorToWrite> tensors, WeightType type,
                       std::uint64_t most_bytes = shard_bytes);

}  // namespace dekoder
