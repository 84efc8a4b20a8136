// SPDX-License-Identifier: Apache-2.0
// Files of tokens as llm.c and nanoGPT keep them, `*.bin`, all numbers little-endian. llm.c: a header of 256 int32
// (magic, version, number of tokens, zeros), then the tokens. nanoGPT: tokens alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/token.hpp"
#include "io/files/input_file.hpp"

namespace dekoder {

struct ShardFormat {
  const char* name;
  std::int32_t magic, version;  ///< both 0: no header
  std::size_t token_bytes;      ///< of uint16 or uint32

  static constexpr std::size_t llm_c_header_bytes = 1024;
  std::size_t header_bytes() const { return magic == 0 ? 0 : llm_c_header_bytes; }
  /// The header of a shard of so many tokens; empty for nanoGPT.
  std::string header(std::uint32_t tokens) const;
};
inline constexpr ShardFormat llm_c_gpt2{"llm.c, GPT-2", 20240520, 1, 2};
inline constexpr ShardFormat llm_c_llama3{"llm.c, Llama 3", 20240801, 7, 4};
inline constexpr ShardFormat nanogpt{"nanoGPT", 0, 0, 2};

struct TokenShard {
  std::filesystem::path path;
  const ShardFormat* format;
  std::uint64_t tokens;
  bool held_out;         ///< by its name: "val" stands in it, behind any "train"
  FileState state = {};  ///< when its header was read; every reading must find this one
};

/// What a shard is, by its first bytes (up to 1024 of them) and its size. Throws DataError that begins with `name`:
/// an empty file, an odd size, a magic or version of llm.c that is no shard's, a header that does not fit the size.
TokenShard read_shard(std::string_view head, std::uint64_t bytes, const std::filesystem::path& name);

/// The shards that a user names, the held-out ones last.
class TokenShards {
 public:
  /// Nothing where all words name texts (Corpus): a shard is a file *.bin (file_kind), named or in a folder, or in
  /// folders of that, in the order of their names. Throws ConfigError where texts are among them, DataError for one
  /// that is packed and for a folder with a part of a set: numbers NAME_train_000001.bin that have gaps or begin
  /// above 1, or unfinished files of an export; and as read_shard and InputFile. Files that are named themselves
  /// are taken as they are.
  static std::optional<TokenShards> of_words(const std::vector<std::string>& words);

  const std::vector<TokenShard>& shards() const { return shards_; }
  std::uint64_t tokens() const;
  /// Of the files that are to train on.
  std::uint64_t training_tokens() const;
  /// Reads all tokens, each in [0, vocabulary), in pieces of at most 65,536. `work`: its name in lines of progress;
  /// "": shows none. Throws DataError naming file and offset of a token outside, and for a file that changes.
  void read(int vocabulary, const char* work, const std::function<void(std::span<const Token>)>& take) const;

  /// The name of the first file, and how many more there are.
  std::string name() const;
  /// The same with the path of the first, for messages.
  std::string place() const;

 private:
  std::vector<TokenShard> shards_;
};

}  // namespace dekoder
