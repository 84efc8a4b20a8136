// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "io/files/input_file.hpp"

namespace dekoder {

/// The bytes of a text file or of standard input, unpacked where they are gzip or zstd. These are known by their
/// first bytes, which no UTF-8 text begins with; a file whose name tells a packing
/// (file_kind) must begin with them. zstd takes the memory of a frame's window besides, 8 MiB as a rule, up to 2
/// GiB where it was packed with --long=31.
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
  /// As InputFile; standard input has no state.
  void require_state(const FileState& before) const;
  /// Bytes read of the file itself so far.
  std::uint64_t raw_bytes() const;
  bool packed() const;
  const std::string& name() const;  ///< input_name of its path

 private:
  class Bytes;
  class Unpacking;
  std::unique_ptr<Bytes> bytes_;
  std::unique_ptr<Unpacking> unpacking_;  ///< null for plain bytes
};

/// What messages call a path: its name, or "standard input".
std::string input_name(const std::filesystem::path& path);

}  // namespace dekoder
