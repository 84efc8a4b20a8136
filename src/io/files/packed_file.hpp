// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace dekoder {

/// The bytes of a text file or of standard input, unpacked where they are gzip or zstd. These are known by their
/// first bytes, which no UTF-8 text begins with; a file whose name ends in .gz or .zst must begin with them.
class PackedFile {
 public:
  static constexpr const char* standard_input = "-";  ///< the path of standard input

  /// `stopped` ends waiting for standard input, as if its end had come. Throws as InputFile, and DataError where
  /// the name says what the bytes are not.
  explicit PackedFile(const std::filesystem::path& path, const std::atomic<bool>* stopped = nullptr);
  ~PackedFile();
  PackedFile(const PackedFile&) = delete;
  PackedFile& operator=(const PackedFile&) = delete;

  /// Fills `out` unless the end comes first; returns the bytes. Throws ReadError, and DataError for packed bytes
  /// that are damaged or end too soon.
  std::size_t read(std::span<char> out);
  /// Bytes read of the file itself so far.
  std::uint64_t raw_bytes() const;
  bool packed() const;

 private:
  class Bytes;
  class Unpacking;
  std::unique_ptr<Bytes> bytes_;
  std::unique_ptr<Unpacking> unpacking_;  ///< null for plain bytes
};

/// What messages call a path: its name, or "standard input".
std::string input_name(const std::filesystem::path& path);

}  // namespace dekoder
