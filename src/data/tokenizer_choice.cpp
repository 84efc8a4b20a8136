// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer_choice.hpp"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "data/text_encoder.hpp"
#include "io/files/input_file.hpp"
#include "tokenizer/byte_pair_files.hpp"
#include "tokenizer/tokenizer_json.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// The characters of a corpus, each once, ascending.
ChosenTokenizer tokenizer_of_characters(const Corpus& corpus, int threads) {
  if (!corpus.is_repeatable())
    throw ConfigError(
        "--tokenizer char and standard input: its vocabulary takes a reading of its own; save the text "
        "as a file and name that, or use the byte tokenizer");
  constexpr std::size_t code_points_in_unicode = 0x110000;
  std::vector<bool> seen(code_points_in_unicode);
  CorpusWork work;
  work.threads = threads;
  work.cut = last_character_border;
  work.name = "vocabulary";
  work.make_worker = [&] {
    return [&corpus, met = std::vector<bool>(code_points_in_unicode)](TextBatch& batch) mutable {
      std::size_t characters = 0;
      for (TextPart& part : batch.parts) {
        for_each_character(batch, part, corpus, [&](char32_t code_point) {
          ++characters;
          if (met[code_point]) return;
          met[code_point] = true;
          batch.tokens.push_back(static_cast<Token>(code_point));  // those that this thread meets first
        });
        part.tokens_end = characters;
      }
    };
  };
  std::uint64_t tokens = 0;
  work.take = [&](const TextBatch& batch) {
    tokens += batch.parts.back().tokens_end;
    for (const Token code_point : batch.tokens) seen[static_cast<std::size_t>(code_point)] = true;
  };
  read_corpus(corpus, work);
  std::vector<char32_t> code_points;
  for (std::size_t c = 0; c < seen.size(); ++c)
    if (seen[c]) code_points.push_back(static_cast<char32_t>(c));
  if (code_points.empty()) throw DataError("{}: is empty, expected text", corpus.place());
  return {Tokenizer::of_characters(std::move(code_points)), tokens};
}

SplitPattern split_pattern(const std::string& name) {
  for (const SplitPattern pattern : {SplitPattern::gpt2, SplitPattern::cl100k, SplitPattern::qwen2})
    if (name == split_pattern_name(pattern)) return pattern;
  return SplitPattern::gpt2;
}

/// Whether the first line is "<base64> <number>".
bool is_rank_file(std::string_view text) {
  std::string_view line = text.substr(0, text.find('\n'));
  if (line.ends_with('\r')) line.remove_suffix(1);
  const std::size_t blank = line.find(' ');
  if (blank == std::string_view::npos || blank == 0 || blank % 4 != 0) return false;
  const std::string_view digits = line.substr(blank + 1);
  return !digits.empty() && std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Tokenizer read_tokenizer_file(const fs::path& path, const std::string& split) {
  const std::optional<std::string> text = read_text_file(path, "tokenizer file");
  if (!text) throw DataError("{}: no such tokenizer file", path.string());
  const std::string name = path.string();
  if (is_rank_file(*text)) return Tokenizer::of_byte_pairs(read_tiktoken_ranks(*text, split_pattern(split), name));
  if (!split.empty())
    throw ConfigError("--split is {}, and {} is no rank file of tiktoken, which alone needs it; leave it out",
                      split, name);
  const std::size_t front = text->find_first_not_of(" \t\r\n");
  if (front != std::string::npos && (*text)[front] == '{')
    return Tokenizer::of_byte_pairs(read_tokenizer_json(*text, name));
  if (text->find('\0') != std::string::npos || find_utf8_fault(*text))
    throw DataError(
        "{}: is no tokenizer that is known here; expected a tokenizer.json, a list of merges or a rank "
        "file of tiktoken",
        name);
  for (const char* beside : {"encoder.json", "vocab.json"}) {
    const fs::path vocabulary = path.parent_path() / beside;
    if (const auto ids = read_text_file(vocabulary, "vocabulary"))
      return Tokenizer::of_byte_pairs(read_merges(*text, name, *ids, vocabulary.string()));
  }
  return Tokenizer::of_byte_pairs(read_merges(*text, name, "", ""));
}

}  // namespace

ChosenTokenizer choose_tokenizer(const TokenizerWish& wish, const Corpus& corpus, int threads) {
  const bool is_file = wish.name != "byte" && wish.name != "char";
  if (!is_file && !wish.split.empty())
    throw ConfigError("--split is {} and --tokenizer {}; expected a rank file of tiktoken with it", wish.split,
                      wish.name);
  if (wish.name == "byte") return {Tokenizer::of_bytes()};
  if (wish.name == "char") return tokenizer_of_characters(corpus, threads);
  return {read_tokenizer_file(wish.name, wish.split)};
}

}  // namespace dekoder
