// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "base/error.hpp"
#include "io/files/xxh64.hpp"
#include "tokenizer/tokenizer.hpp"

namespace dekoder {

/// What a token file says about itself, as attributes of its root group.
struct TokenFileHeader {
  Tokenizer tokenizer = Tokenizer::of_bytes();
  std::string source;                  ///< name of the file, or of the first one and how many more
  std::string source_sha256;           ///< 64 hexadecimal digits, of what: see prepare_tokens and ShardImport
  std::uint64_t source_bytes = 0;      ///< of the text
  std::uint64_t tokens = 0;            ///< of both parts
  std::uint64_t training_tokens = 0;   ///< the first ones; the rest is held out for validation
  std::uint64_t validation_bytes = 0;  ///< of the source that the held-out tokens stand for
  std::uint64_t block_tokens = 0;      ///< tokens per digest

  // Minor version 1; files without documents, of a single text by characters or bytes, are of minor version 0.
  std::uint64_t documents = 0;             ///< 0: the file does not tell
  std::uint64_t validation_documents = 0;  ///< the last ones, whole; 0 where a place in a text is the border
  std::uint64_t empty_documents = 0;       ///< that were left out
  bool split_by_document = false;
  double validation_fraction = 0;  ///< of the documents that was asked for, where they are split by it

  // Minor version 1, where !tokenizer.keeps_bytes().
  std::uint64_t validation_token_bytes = 0;  ///< that the texts of the held-out tokens have; 0: validation_bytes
  std::uint64_t unknown_tokens = 0;          ///< Tokenizer::unknown among the tokens

  std::uint64_t validation_tokens() const { return tokens - training_tokens; }
  /// Equal for files of the same text with the same held-out part: "<source_sha256>/<training_tokens>".
  std::string identity() const { return fmt::format("{}/{}", source_sha256, training_tokens); }
};

namespace token_file {

inline constexpr const char* format = "dekoder-tokens";
inline constexpr int major_version = 2;  ///< another one is refused
inline constexpr int minor_version = 1;  ///< additions that older readers may ignore
inline constexpr std::uint64_t block_bytes = 64 * 1024;
inline constexpr std::uint64_t document_ends_chunk = 8192;  ///< values per chunk of /document_ends

/// Written by an older program: nothing is wrong with the file, but `dekoder prepare` must make it again.
class OlderFormatError : public DataError {
 public:
  using DataError::DataError;
};

/// Reads and checks the header. Throws DataError where the file is missing, damaged, foreign or of a newer format,
/// OlderFormatError where it is of an older one, ReadError where the system cannot read it now.
TokenFileHeader read_header(const std::filesystem::path& file);

/// Reads a token file through and checks every digest, block by block, and the ends of its documents. Throws as
/// TokenDataset.
void verify(const std::filesystem::path& file);

/// Tokens per document of a file, the tokens that end them among them.
struct DocumentLengths {
  std::uint64_t least = 0, most = 0;
  std::array<std::uint64_t, 64> of_bits{};  ///< [b]: documents of 2^b to 2^(b+1) - 1 tokens
};
/// Of a file with this header; all zero where that does not tell. Throws DataError where the ends are not those of
/// the file's tokens.
DocumentLengths document_lengths(const std::filesystem::path& file, const TokenFileHeader& header);

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
