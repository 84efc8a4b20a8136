// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/gguf_writer.hpp"

#include <type_traits>

namespace dekoder {

namespace {

constexpr std::uint32_t version = 3;
constexpr std::uint64_t alignment = 32;  ///< that of a file which says none
constexpr std::uint32_t array_type = 9;

template <class T>
constexpr std::uint32_t value_type() {
  if constexpr (std::is_same_v<T, std::uint8_t>) return 0;
  if constexpr (std::is_same_v<T, std::uint32_t>) return 4;
  if constexpr (std::is_same_v<T, std::int32_t>) return 5;
  if constexpr (std::is_same_v<T, float>) return 6;
  if constexpr (std::is_same_v<T, bool>) return 7;
  if constexpr (std::is_same_v<T, std::string>) return 8;
}

/// ggml_type.
std::uint32_t tensor_type(WeightType type) {
  switch (type) {
    case WeightType::float32:
      return 0;
    case WeightType::float16:
      return 1;
    case WeightType::q8_0:
      return 8;
    case WeightType::bfloat16:
      return 30;
  }
  throw std::logic_error("a type of weights without a number in GGUF");
}

template <class T>
void put(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    put(out, std::uint64_t(value.size()));
    out += value;
  } else {
    out.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
}

template <class T>
void put_value(std::string& out, const T& value) {
  put(out, value_type<T>());
  put(out, value);
}

template <class T>
void put_value(std::string& out, const std::vector<T>& values) {
  put(out, array_type);
  put(out, value_type<T>());
  put(out, std::uint64_t(values.size()));
  for (const T& value : values) put(out, value);
}

}  // namespace

void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                std::span<const TensorToWrite> tensors) {
  std::string front = "GGUF";
  put(front, version);
  put(front, std::uint64_t(tensors.size()));
  put(front, std::uint64_t(metadata.size()));
  for (const GgufEntry& entry : metadata) {
    put(front, entry.key);
    std::visit([&](const auto& value) { put_value(front, value); }, entry.value);
  }
  std::uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    put(front, tensor.name);
    put(front, std::uint32_t(tensor.shape.size()));
    for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent) put(front, *extent);
    put(front, tensor_type(tensor.type));
    put(front, offset);
    offset += aligned(tensor.bytes(), alignment);
  }
  front.resize(aligned(front.size(), alignment), '\0');
  write_tensor_file(path, "gguf", front, tensors, alignment);
}

}  // namespace dekoder
