// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer_choice.hpp"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/utf8.hpp"
#include "data/text_encoder.hpp"
#include "io/files/file_kind.hpp"
#include "io/files/input_file.hpp"
#include "tokenizer/byte_alphabet.hpp"
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
  return Tokenizer::of_byte_pairs(tokenizer_of_merges(std::move(merges), pattern, corpus.place()));
}

enum class TokenizerFile { json, merges, ranks, model };

constexpr const char* accepted =
    "a tokenizer.json (byte-level BPE), a list of merges (vocab.bpe, merges.txt), a rank file of tiktoken or a "
    ".model "
    "of SentencePiece";

std::string_view first_line(std::string_view text) {
  text.remove_prefix(std::min(text.size(), text.find_first_not_of("\r\n")));
  return text.substr(0, text.find_first_of("\r\n"));
}

/// Whether the first line is "<base64> <number>".
bool is_rank_file(std::string_view text) {
  const std::string_view line = first_line(text);
  const std::size_t blank = line.find(' ');
  if (blank == std::string_view::npos || blank == 0 || blank % 4 != 0) return false;
  const std::string_view digits = line.substr(blank + 1);
  return !digits.empty() && std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// Whether the first line is "#version..." or a merge of two bytes, which every list begins with.
bool is_merge_list(std::string_view text) {
  const std::string_view line = first_line(text);
  if (line.starts_with("#version")) return true;
  const std::size_t blank = line.find(' ');
  if (blank == std::string_view::npos) return false;
  const auto left = from_byte_alphabet(line.substr(0, blank)), right = from_byte_alphabet(line.substr(blank + 1));
  return left && right && left->size() == 1 && right->size() == 1;
}

std::optional<TokenizerFile> kind_by_content(std::string_view bytes) {
  const std::size_t front = bytes.find_first_not_of(" \t\r\n");
  if (front != std::string_view::npos && bytes[front] == '{') return TokenizerFile::json;
  if (is_rank_file(bytes)) return TokenizerFile::ranks;
  if (bytes.find('\0') != std::string_view::npos || find_utf8_fault(bytes))  // a model's first field is a piece
    return bytes.starts_with('\x0A') ? std::optional(TokenizerFile::model) : std::nullopt;
  return is_merge_list(bytes) ? std::optional(TokenizerFile::merges) : std::nullopt;
}

std::optional<TokenizerFile> kind_by_name(const fs::path& path) {
  const std::string ending = path.extension().string();
  if (ending == ".json") return TokenizerFile::json;
  if (ending == ".model") return TokenizerFile::model;
  if (ending == ".tiktoken") return TokenizerFile::ranks;
  if (ending == ".bpe" || ending == ".txt") return TokenizerFile::merges;
  return std::nullopt;
}

/// The contents decide, as Llama 3's ranks are called tokenizer.model; where they are of no kind, the name says
/// what was to be there.
TokenizerFile kind_of(std::string_view bytes, const fs::path& path) {
  const std::string name = path.string();
  if (bytes.find_first_not_of(" \t\r\n") == std::string_view::npos)
    throw DataError("{}: is empty; expected {}", name, accepted);
  if (const char* mark = byte_order_mark(bytes))
    throw DataError("{}: begins with a byte order mark ({}); expected {}, texts in UTF-8 without one", name, mark,
                    accepted);
  if (const auto foreign = foreign_format(bytes))
    throw DataError("{}: is {}; expected {}", name, foreign->name, accepted);
  if (const auto kind = kind_by_content(bytes)) return *kind;
  if (const auto kind = kind_by_name(path)) return *kind;
  throw DataError("{}: begins with '{}'; expected {}", name, excerpt(first_line(bytes), 40), accepted);
}

// Nothing tells whether ranks, and merges without ids, that end with a line are all: the log says how many there
// are.

BytePairTokenizer read_merge_list(const fs::path& path, const std::string& text) {
  const std::string name = path.string();
  for (const char* beside : {"encoder.json", "vocab.json"}) {
    const fs::path vocabulary = path.parent_path() / beside;
    if (const auto ids = read_text_file(vocabulary, "vocabulary"))
      return read_merges(text, name, *ids, vocabulary.string());
  }
  BytePairTokenizer tokenizer = read_merges(text, name);
  log_info("{}: {} merges, and no encoder.json or vocab.json beside it: ids by their order", name,
           tokenizer.pairs().merges().size());
  return tokenizer;
}

Tokenizer read_tokenizer_file(const fs::path& path, const std::string& split) {
  const std::optional<std::string> text = read_text_file(path, "tokenizer file");
  if (!text) throw DataError("{}: no such tokenizer file", path.string());
  const std::string name = path.string();
  const TokenizerFile kind = kind_of(*text, path);
  if (kind != TokenizerFile::ranks && !split.empty())
    throw ConfigError("--split is {}, and {} is no rank file of tiktoken, which alone needs it; leave it out",
                      split, name);
  switch (kind) {
    case TokenizerFile::json:
      return Tokenizer::of_byte_pairs(read_tokenizer_json(*text, name));
    case TokenizerFile::model:
      return Tokenizer::of_sentencepiece(*text, name);
    case TokenizerFile::merges:
      return Tokenizer::of_byte_pairs(read_merge_list(path, *text));
    case TokenizerFile::ranks:
      break;
  }
  BytePairTokenizer tokenizer = read_tiktoken_ranks(*text, split_pattern(split), name);
  log_info("{}: {} ranks", name, tokenizer.pairs().size() - 1);
  return Tokenizer::of_byte_pairs(std::move(tokenizer));
}

/// That needs no texts.
Tokenizer known_tokenizer(const TokenizerWish& wish) {
  const bool is_file = wish.name != "byte" && wish.name != "char";
  if (!is_file && !wish.split.empty())
    throw ConfigError(
        "--split is {} and --tokenizer {}, which has no merges; expected --tokenizer bpe or a rank file of "
        "tiktoken "
        "with it, or leave it out",
        wish.split, wish.name);
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
