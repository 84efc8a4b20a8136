// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "base/error.hpp"
#include "tokenizer/tokenizer.hpp"
#include "io/files/xxh64.hpp"

namespace dekoder {

/// What a token file says about itself, as attributes of its root group.
struct TokenFileHeader {
  Tokenizer tokenizer = Tokenizer::of_bytes();
  std::string source;                  ///< name of the text file
  std::string source_sha256;           ///< of the text file, 64 hexadecimal digits
  std::uint64_t source_bytes = 0;      ///< of the text file
  std::uint64_t tokens = 0;            ///< of both parts
  std::uint64_t training_tokens = 0;   ///< the first ones; the rest is held out for validation
  std::uint64_t validation_bytes = 0;  ///< of the source that the held-out tokens stand for
  std::uint64_t block_tokens = 0;      ///< tokens per digest

  std::uint64_t validation_tokens() const { return tokens - training_tokens; }
  /// Equal for files of the same text with the same held-out part: "<source_sha256>/<training_tokens>".
  std::string identity() const { return fmt::format("{}/{}", source_sha256, training_tokens); }
};

namespace token_file {

inline constexpr const char* format = "dekoder-tokens";
inline constexpr int major_version = 2;  ///< another one is refused
inline constexpr int minor_version = 0;  ///< additions that older readers may ignore
inline constexpr std::uint64_t block_bytes = 64 * 1024;

/// Written by an older program: nothing is wrong with the file, but `dekoder prepare` must make it again.
class OlderFormatError : public DataError {
 public:
  using DataError::DataError;
};

/// Reads and checks the header. Throws DataError where the file is missing, damaged, foreign or of a newer format,
/// OlderFormatError where it is of an older one, ReadError where the system cannot read it now.
TokenFileHeader read_header(const std::filesystem::path& file);

/// Reads a token file through and checks every digest, block by block. Throws as TokenDataset.
void verify(const std::filesystem::path& file);

/// Digest of block `block` (XXH64 over its number, 8 bytes, and its tokens, little-endian): finds blocks that are
/// zeroed, swapped or changed.
template <class Stored>
std::uint64_t block_digest(std::uint64_t block, std::span<const Stored> tokens) {
  Xxh64 digest;
  digest.update(std::as_bytes(std::span(&block, 1)));
  digest.update(std::as_bytes(tokens));
  return digest.digest();
}

}  // namespace token_file

/// A token file, opened for reading by any number of threads. Files below the memory limit are read and checked
/// whole; larger ones are read block by block as windows ask for them.
class TokenDataset {
 public:
  static constexpr std::size_t default_memory_limit = std::size_t{1} << 30;  ///< bytes of tokens kept in memory

  /// Throws DataError naming file, dataset, what, expected and remedy; ReadError where the system cannot read it
  /// now.
  explicit TokenDataset(const std::filesystem::path& file, std::size_t memory_limit = default_memory_limit);
  ~TokenDataset();
  TokenDataset(TokenDataset&&) noexcept;

  const std::filesystem::path& path() const { return path_; }
  const TokenFileHeader& header() const { return header_; }
  const Tokenizer& tokenizer() const { return header_.tokenizer; }
  /// V: every token is in [0, V).
  int vocabulary() const { return header_.tokenizer.vocabulary(); }
  std::uint64_t training_tokens() const { return header_.training_tokens; }
  std::uint64_t validation_tokens() const { return header_.validation_tokens(); }
  /// Whether windows are read from the file when they are asked for.
  bool streams() const;

  /// Copies tokens [first, first + out.size()) of the whole file; held-out tokens start at training_tokens().
  /// Throws DataError where a block on the disk is damaged, std::out_of_range past the end.
  void read(std::uint64_t first, std::span<Token> out) const;

 private:
  class Blocks;

  std::filesystem::path path_;
  TokenFileHeader header_;
  std::unique_ptr<Blocks> blocks_;
};

}  // namespace dekoder
