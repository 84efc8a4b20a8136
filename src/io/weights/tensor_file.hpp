// SPDX-License-Identifier: Apache-2.0
// Files of tensors, one behind the other after a header: safetensors and GGUF.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/weights/weight_type.hpp"

namespace dekoder {

/// A tensor whose elements are asked for when their turn comes, so that one is in memory at a time.
struct TensorToWrite {
  std::string name;
  std::vector<std::uint64_t> shape;  ///< outermost first
  std::function<void(std::span<float>)> fill;
  WeightType type = WeightType::float32;  ///< in the file

  std::uint64_t elements() const;
  std::uint64_t bytes() const { return bytes_of(type, elements()); }
};

/// The next multiple of `alignment`.
constexpr std::uint64_t aligned(std::uint64_t place, std::uint64_t alignment) {
  return (place + alignment - 1) / alignment * alignment;
}

/// Writes `front` and the tensors, after each of them zeros up to a multiple of `alignment` bytes, as a PendingFile
/// of this kind, which is read back against its digest and by `verify` before it takes its name. Throws DataError
/// as PendingFile, and naming the tensor and the element that its type has no number for.
void write_tensor_file(const std::filesystem::path& path, const std::string& kind, std::string_view front,
                       std::span<const TensorToWrite> tensors, std::uint64_t alignment,
                       const std::function<void(const std::filesystem::path&)>& verify = nullptr);

}  // namespace dekoder
