// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "data/export_shards.hpp"
#include "data/prepare_tokens.hpp"
#include "data/token_shards.hpp"
#include "support/scratch_folder.hpp"
#include "tokenizer/byte_pair_files.hpp"

namespace dekoder::fuzz {

/// Reads token shards and token files that are not what they should be, in a folder of its own.
class TokenFileReader {
 public:
  TokenFileReader() {
    bytes_.name = "byte";
    pairs_.name = (scratch_ / "tokenizer.json").string();
    const BytePairTokenizer pairs = tokenizer_of_merges({{'t', 'h'}, {256, 'e'}}, SplitPattern::gpt2, "here");
    scratch_.write("tokenizer.json", Tokenizer::of_byte_pairs(pairs).to_text());
    scratch_.write("text.jsonl", "{\"text\": \"the\"}\n{\"text\": \"theta\"}\n{\"text\": \"a\"}\n");
    PrepareOptions options = options_of("text.jsonl", "good.h5", pairs_);
    options.validation_fraction = 0.4;
    prepare_tokens(options);
    good_ = contents_of("good.h5");
  }

  /// The input: a letter for its kind and what follows. Kinds: `n` a shard as it is; `l` one of llm.c whose header
  /// is 12 bytes long, for which zeros are added; `N` and `L` the same, with byte pairs for bytes; `h` a good token
  /// file with changes, each of 3 bytes: place, 2 bytes, and what to flip there; 2 bytes behind these are its new
  /// size.
  void read(std::string_view input) {
    if (input.empty()) return;
    const char kind = input[0];
    input.remove_prefix(1);
    std::string file(input);
    if (kind == 'l' || kind == 'L') file.insert(std::min<std::size_t>(12, file.size()), 1012, '\0');
    try {
      if (kind == 'n' || kind == 'l') read_shard_file(file, bytes_);
      if (kind == 'N' || kind == 'L') read_shard_file(file, pairs_);
      if (kind == 'h') read_token_file(input);
    } catch (const UserError& error) {
      const std::string message = error.what();
      demand(message.find('\n') == std::string::npos && !find_utf8_fault(message) && message.size() < 2000 &&
                 message.find("a_train.bin") + message.find("t.h5") + 1 != std::string::npos,
             "a message is one line of text that names the file");
    }
  }

 private:
  static void demand(bool holds, const char* rule) {
    if (!holds) throw std::logic_error(rule);
  }
  PrepareOptions options_of(const std::string& source, const std::string& output, const TokenizerWish& tokenizer) {
    PrepareOptions options;
    options.sources = {(scratch_ / source).string()};
    options.output = scratch_ / output;
    options.tokenizer = tokenizer;
    return options;
  }
  std::string contents_of(const std::string& name) const {
    std::ifstream file(scratch_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static std::vector<Token> tokens_of(const TokenDataset& data) {
    std::vector<Token> tokens(data.header().tokens);
    data.read(0, tokens);
    return tokens;
  }
  /// The tokens of a shard that is known to be one, in another way than the program's.
  static std::vector<Token> tokens_of(std::string_view file) {
    const auto number = [&](std::size_t at, std::size_t bytes) {
      std::uint32_t value = 0;
      for (std::size_t i = 0; i < bytes; ++i)
        value |= std::uint32_t{static_cast<unsigned char>(file[at + i])} << (8 * i);
      return value;
    };
    const std::uint32_t magic = file.size() >= 4 ? number(0, 4) : 0;
    const std::size_t bytes = magic == 20240801 ? 4 : 2, header = magic == 20240801 || magic == 20240520 ? 1024 : 0;
    std::vector<Token> tokens;
    for (std::size_t at = header; at < file.size(); at += bytes)
      tokens.push_back(static_cast<Token>(number(at, bytes)));
    return tokens;
  }

  void read_shard_file(const std::string& file, const TokenizerWish& tokenizer) {
    read_shard(std::string_view(file).substr(0, 1024), file.size(), "a_train.bin");  // most end here, fast
    scratch_.write("a_train.bin", file);
    prepare_tokens(options_of("a_train.bin", "t.h5", tokenizer));
    const TokenDataset data(scratch_ / "t.h5");
    const std::vector<Token> tokens = tokens_of(data);
    demand(tokens == tokens_of(file), "the tokens of a shard are those of the token file");
    const auto held_out = static_cast<std::uint64_t>(std::llround(0.1 * double(tokens.size())));
    demand(data.validation_tokens() == held_out, "the last tenth is held out");
    export_and_import(data, tokenizer);
  }
  void export_and_import(const TokenDataset& data, const TokenizerWish& tokenizer) {
    ShardExport wish;
    wish.folder = scratch_ / "shards";
    wish.shard_tokens = 1 + data.header().tokens / 3;
    wish.as_nanogpt = data.header().tokens % 2 == 0;
    std::filesystem::remove_all(wish.folder);
    export_shards(data, wish);
    const TokenFileHeader again = prepare_tokens(options_of("shards", "again.h5", tokenizer)).header;
    demand(again.source_bytes == data.header().source_bytes, "bytes of the source");
    demand(tokens_of(TokenDataset(scratch_ / "again.h5")) == tokens_of(data) &&
               again.training_tokens == data.training_tokens(),
           "exported shards have the same tokens and held-out part");
  }
  void read_token_file(std::string_view changes) {
    std::string file = good_;
    const auto place = [&] {
      const auto low = static_cast<unsigned char>(changes[0]), high = static_cast<unsigned char>(changes[1]);
      return (low + 256u * high) % file.size();
    };
    for (; changes.size() >= 3; changes.remove_prefix(3))
      file[place()] = static_cast<char>(file[place()] ^ changes[2]);
    if (changes.size() == 2) file.resize(place());
    scratch_.write("t.h5", file);
    token_file::verify(scratch_ / "t.h5");
    const TokenDataset data(scratch_ / "t.h5");
    std::string text;
    for (const Token token : tokens_of(data)) {
      demand(token >= 0 && token < data.vocabulary(), "a token is of the vocabulary");
      data.tokenizer().append_bytes(text, token);
    }
  }

  testing_support::ScratchFolder scratch_{"fuzz-token-files"};
  TokenizerWish bytes_, pairs_;
  std::string good_;
};

}  // namespace dekoder::fuzz
