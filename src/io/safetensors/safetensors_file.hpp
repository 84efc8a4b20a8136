// SPDX-License-Identifier: Apache-2.0
// The format safetensors: 8 bytes with the length of the header (little-endian), the header, the data. The header
// is JSON: {"<name>": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__":
// {texts}}, padded with spaces; offsets are bytes from the beginning of the data, where tensors lie one behind the
// other, row by row, without holes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/files/input_file.hpp"

namespace dekoder {

/// A tensor as a header describes it.
struct SafetensorsTensor {
  std::string name;
  std::string type;                  ///< "F32", "BF16", ...
  std::vector<std::uint64_t> shape;  ///< outermost first; empty: a single number
  std::uint64_t begin = 0, end = 0;  ///< bytes of the data
  std::uint64_t elements = 0;        ///< the product of the shape
};

/// "[2, 3]".
std::string shape_text(const std::vector<std::uint64_t>& shape);

/// A file, open for reading, whose header is checked whole: known types, bytes that fit the shapes, no overlap, no
/// hole, nothing behind the last tensor.
class SafetensorsFile {
 public:
  /// Throws DataError naming file, tensor, what is there, what is expected and the remedy; ReadError.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  /// In the order of their data.
  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }
  /// The elements of one of `tensors`, F32, F16, BF16 or F64, as float; `out` has as many. Throws DataError for
  /// another type.
  void read(const SafetensorsTensor& tensor, std::span<float> out) const;

 private:
  std::filesystem::path path_;
  InputFile file_;
  std::vector<SafetensorsTensor> tensors_;
  std::uint64_t data_ = 0;  ///< where it begins
};

/// The tensors of a model's folder: model.safetensors, or the shards that model.safetensors.index.json names.
class SafetensorsFolder {
 public:
  struct Place {
    const SafetensorsFile* file;
    const SafetensorsTensor* tensor;
  };

  /// Throws as SafetensorsFile, and DataError where index and shards do not name the same tensors.
  explicit SafetensorsFolder(const std::filesystem::path& folder);

  const std::map<std::string, Place>& tensors() const { return tensors_; }

 private:
  void add(const std::filesystem::path& file);

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Place> tensors_;
};

inline constexpr const char* safetensors_name = "model.safetensors";
inline constexpr const char* safetensors_index_name = "model.safetensors.index.json";

}  // namespace dekoder
