// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer_choice.hpp"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/utf8.hpp"
#include "data/text_encoder.hpp"
#include "io/files/input_file.hpp"
#include "tokenizer/byte_pair_files.hpp"
#include "tokenizer/byte_pair_training.hpp"
#include "tokenizer/tokenizer_json.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// A vocabulary takes a reading of its own.
void require_repeatable(const Corpus& corpus, const char* name) {
  if (!corpus.is_repeatable())
    throw ConfigError(
        "--tokenizer {} and standard input: its vocabulary takes a reading of its own; save the text as a file and "
        "name that, or use the byte tokenizer",
        name);
}

/// The characters of a corpus, each once, ascending.
ChosenTokenizer tokenizer_of_characters(const Corpus& corpus, int threads) {
  require_repeatable(corpus, "char");
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
  for (const SplitPattern pattern : split_patterns)
    if (name == split_pattern_name(pattern)) return pattern;
  return SplitPattern::gpt2;
}

/// Byte pairs of the corpus; what they are depends on the counts of its pieces alone, not on the threads.
Tokenizer trained_byte_pairs(const TokenizerWish& wish, const Corpus& corpus, int threads) {
  require_repeatable(corpus, "bpe");
  const SplitPattern pattern = split_pattern(wish.split);
  std::mutex mutex;
  std::vector<std::unique_ptr<PieceCounter>> counters;  // one for each thread
  CorpusWork work;
  work.threads = threads;
  work.cut = [](std::string_view text) {  // the same places for any number of threads
    const std::size_t cut = last_safe_cut(text);
    return cut > 0 ? cut : last_character_border(text);
  };
  work.name = "pieces";
  work.make_worker = [&] {
    const std::lock_guard lock(mutex);
    PieceCounter* counter = counters.emplace_back(std::make_unique<PieceCounter>()).get();
    return [=](TextBatch& batch) {
      for (const TextPart& part : batch.parts) counter->add(pattern, batch.text_of(part));
    };
  };
  work.take = [](const TextBatch&) {};
  read_corpus(corpus, work);
  PieceCounter all;
  for (const auto& counter : counters) all.merge(*counter);
  constexpr int without_merges = 257;  // bytes and the end of a text
  std::vector<BytePair> merges = train_byte_pairs(all.result(), wish.vocabulary - without_merges);
  if (const auto made = int(merges.size()) + without_merges; made < wish.vocabulary)
    log_warning("the texts have pairs for a vocabulary of {} only, not {}", made, wish.vocabulary);
  return Tokenizer::of_byte_pairs(tokenizer_of_merges(std::move(merges), pattern, corpus.place()));
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
  if (front == std::string::npos)
    throw DataError("{}: is empty; expected a tokenizer.json, a list of merges, a rank file or a .model", name);
  if ((*text)[front] == '{') return Tokenizer::of_byte_pairs(read_tokenizer_json(*text, name));
  if (text->find('\0') != std::string::npos || find_utf8_fault(*text))
    return Tokenizer::of_sentencepiece(*text, name);
  for (const char* beside : {"encoder.json", "vocab.json"}) {
    const fs::path vocabulary = path.parent_path() / beside;
    const auto ids = read_text_file(vocabulary, "vocabulary");
    if (ids && ids->empty())
      throw DataError("{}: is empty; expected the ids of the tokens of {}, or no such file", vocabulary.string(),
                      name);
    if (ids) return Tokenizer::of_byte_pairs(read_merges(*text, name, *ids, vocabulary.string()));
  }
  return Tokenizer::of_byte_pairs(read_merges(*text, name, "", ""));
}

/// That needs no texts.
Tokenizer known_tokenizer(const TokenizerWish& wish) {
  const bool is_file = wish.name != "byte" && wish.name != "char";
  if (!is_file && !wish.split.empty())
    throw ConfigError("--split is {} and --tokenizer {}; expected a rank file of tiktoken with it", wish.split,
                      wish.name);
  return is_file ? read_tokenizer_file(wish.name, wish.split) : Tokenizer::of_bytes();
}

}  // namespace

ChosenTokenizer choose_tokenizer(const TokenizerWish& wish, const Corpus& corpus, int threads) {
  if (wish.name == "bpe") return {trained_byte_pairs(wish, corpus, threads)};
  if (wish.name == "char" && wish.split.empty()) return tokenizer_of_characters(corpus, threads);
  return {known_tokenizer(wish)};
}

Tokenizer choose_tokenizer(const TokenizerWish& wish) {
  if (wish.name == "char" || wish.name == "bpe")
    throw ConfigError(
        "--tokenizer {} makes its vocabulary of texts, and there are token shards; expected byte or the file of "
        "the "
        "tokenizer that they were made with",
        wish.name);
  return known_tokenizer(wish);
}

}  // namespace dekoder
