// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/byte_pair_files.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <tuple>
#include <unordered_map>

#include "base/base64.hpp"
#include "base/error.hpp"
#include "base/utf8.hpp"
#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/tokenizer_json.hpp"

namespace dekoder {

namespace {

/// Calls visit(line number from 1, line) for every line that is not empty.
template <class Visit>
void for_each_line(std::string_view text, Visit visit) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) visit(number, line);
  }
}

/// Of a token of a rank file, whose cuts in two are all looked at; those that are published have 128 at most.
constexpr std::size_t most_rank_bytes = 1024;

MergeList read_list(std::string_view text, std::string_view where) {
  MergeList list;
  list.places.file = where;
  for_each_line(text, [&](std::size_t number, std::string_view line) {
    if (number == 1 && line.starts_with("#version")) return;
    const std::size_t blank = line.find(' ');
    if (blank == 0 || blank == std::string_view::npos || blank + 1 == line.size() ||
        line.find(' ', blank + 1) != std::string_view::npos)
      throw DataError("{}:{}: '{}'; expected two tokens with a space between them", where, number, excerpt(line));
    list.merges.emplace_back(line.substr(0, blank), line.substr(blank + 1));
    list.places.lines.push_back(number);
  });
  return list;
}

std::vector<std::string> byte_texts() {
  std::vector<std::string> texts;
  for (const unsigned char byte : byte_alphabet().in_order) texts.emplace_back(1, static_cast<char>(byte));
  return texts;
}

BytePairTokenizer with_end_of_text(std::vector<std::string> texts, std::vector<BytePair> merges,
                                   SplitPattern pattern, bool whole_pieces, std::string_view where,
                                   const MergePlaces* places = nullptr) {
  const Token end = Token(texts.size());
  if (const auto same = std::find(texts.begin(), texts.end(), end_of_text_name); same != texts.end())
    throw DataError("{}: token {} is '{}', as the special token behind all is; expected no other of this text",
                    where, same - texts.begin(), end_of_text_name);
  texts.emplace_back(end_of_text_name);
  const std::vector<Token> unused{end};
  return {BytePairs(std::move(texts), std::move(merges), whole_pieces, unused, where, places),
          pattern,
          {{end, end_of_text_name, true}},
          false,
          where};
}

}  // namespace

BytePairTokenizer tokenizer_of_merges(std::vector<BytePair> merges, SplitPattern pattern, std::string_view where,
                                      const MergePlaces* places) {
  std::vector<std::string> texts = byte_texts();
  std::unordered_map<std::string, Token> tokens;
  for (std::size_t token = 0; token < texts.size(); ++token) tokens.emplace(texts[token], Token(token));
  for (const auto& [left, right] : merges) {
    if (std::max(left, right) >= Token(texts.size()) || std::min(left, right) < 0)
      throw DataError("{}: a merge of tokens {} and {}, of which there are {} before it", where, left, right,
                      texts.size());
    std::string joined = texts[std::size_t(left)] + texts[std::size_t(right)];
    if (tokens.emplace(joined, Token(texts.size())).second) texts.push_back(std::move(joined));
  }
  return with_end_of_text(std::move(texts), std::move(merges), pattern, false, where, places);
}

BytePairTokenizer read_merges(std::string_view merges, std::string_view merges_name,
                              std::optional<std::string_view> vocabulary, std::string_view vocabulary_name) {
  const MergeList list = read_list(merges, merges_name);
  if (vocabulary && vocabulary->empty())
    throw DataError("{}: is empty; expected the ids of the tokens of {}, or no such file", vocabulary_name,
                    merges_name);
  if (vocabulary) return read_gpt2_vocabulary(*vocabulary, list, vocabulary_name);
  std::vector<std::string> texts = byte_texts();
  std::unordered_map<std::string, Token> tokens;
  for (std::size_t token = 0; token < texts.size(); ++token)
    tokens.emplace(in_byte_alphabet(texts[token]), Token(token));
  std::vector<BytePair> pairs;
  for (const auto& [left, right] : list.merges) {
    const auto token = [&](std::string_view text) {
      const auto found = tokens.find(std::string(text));
      if (found == tokens.end())
        throw DataError("{}:{}: '{}' is neither a byte nor what a merge before it makes", merges_name,
                        list.places.lines[pairs.size()], excerpt(text));
      return found->second;
    };
    pairs.push_back({token(left), token(right)});
    tokens.emplace(std::string(left).append(right), Token(tokens.size()));
  }
  return tokenizer_of_merges(std::move(pairs), SplitPattern::gpt2, merges_name, &list.places);
}

BytePairTokenizer read_tiktoken_ranks(std::string_view text, SplitPattern pattern, std::string_view where) {
  std::vector<std::string> texts;
  std::vector<std::size_t> lines;  // by rank
  for_each_line(text, [&](std::size_t number, std::string_view line) {
    const std::size_t blank = line.find(' ');
    const std::string_view digits = blank == std::string_view::npos ? "" : line.substr(blank + 1);
    std::optional<std::string> bytes = from_base64(line.substr(0, blank));
    std::uint64_t rank = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    if (!bytes || bytes->empty() || digits.empty() || parsed.ec != std::errc() ||
        parsed.ptr != digits.data() + digits.size())
      throw DataError("{}:{}: '{}'; expected base64, a space and a rank, as tiktoken's files have them", where,
                      number, excerpt(line));
    if (rank != texts.size())
      throw DataError("{}:{}: rank {}; expected {}: ranks ascend from 0 without holes", where, number, rank,
                      texts.size());
    if (bytes->size() > most_rank_bytes)
      throw DataError("{}:{}: rank {} has {} bytes; expected at most {}", where, number, rank, bytes->size(),
                      most_rank_bytes);
    texts.push_back(std::move(*bytes));
    lines.push_back(number);
  });
  std::unordered_map<std::string_view, Token> tokens;
  tokens.reserve(texts.size());
  for (std::size_t rank = 0; rank < texts.size(); ++rank)
    if (!tokens.emplace(texts[rank], Token(rank)).second)
      throw DataError("{}:{}: rank {} has the bytes of an earlier one; expected each once", where, lines[rank],
                      rank);
  // tiktoken merges any two neighbours whose joined bytes are a token, the lowest rank first: all ways to cut a
  // token in two are pairs, in the order of their tokens.
  std::vector<BytePair> merges;
  for (const std::string_view whole : texts) {
    const std::size_t first = merges.size();
    for (std::size_t cut = 1; cut < whole.size(); ++cut) {
      const auto left = tokens.find(whole.substr(0, cut));
      if (left == tokens.end()) continue;
      if (const auto right = tokens.find(whole.substr(cut)); right != tokens.end())
        merges.push_back({left->second, right->second});
    }
    std::sort(merges.begin() + long(first), merges.end(), [](const BytePair& a, const BytePair& b) {
      return std::tie(a.left, a.right) < std::tie(b.left, b.right);
    });
  }
  return with_end_of_text(std::move(texts), std::move(merges), pattern, true, where);
}

}  // namespace dekoder
