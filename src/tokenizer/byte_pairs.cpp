// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/byte_pairs.hpp"

#include <algorithm>
#include <bit>
#include <queue>
#include <tuple>

#include "base/error.hpp"
#include "base/utf8.hpp"

namespace dekoder {

namespace {

constexpr std::uint64_t empty_key = ~std::uint64_t{0};
constexpr std::size_t short_bytes = 128;  ///< up to here looking at all pairs again and again is the faster way

std::uint64_t key_of(Token left, Token right) {
  return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
}

/// Spreads a key over 64 bits (the multiplier of Fibonacci hashing, Knuth, TAOCP 3, section 6.4).
std::size_t spread(std::uint64_t key) {
  key *= 0x9E3779B97F4A7C15;
  return std::size_t(key ^ key >> 32);
}

/// FNV-1a.
std::size_t spread(std::string_view text) {
  std::uint64_t hash = 0xCBF29CE484222325;
  for (const char byte : text) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001B3;
  return spread(hash);
}

std::size_t table_size(std::size_t entries) {
  return std::bit_ceil(2 * entries + 2);
}

}  // namespace

std::string MergePlaces::place(std::size_t rank) const {
  return lines.empty() ? fmt::format("{}: merge {}", file, rank)
                       : fmt::format("{}:{}: the merge", file, lines[rank]);
}

std::string MergePlaces::mention(std::size_t rank) const {
  return lines.empty() ? fmt::format("merge {}", rank) : fmt::format("that in line {}", lines[rank]);
}

BytePairs::BytePairs(std::vector<std::string> texts, std::vector<BytePair> merges, bool whole_pieces,
                     std::span<const Token> unused, std::string_view where, const MergePlaces* places)
    : texts_(std::move(texts)), merges_(std::move(merges)), whole_pieces_(whole_pieces) {
  std::vector<bool> used(texts_.size(), true);
  for (const Token token : unused) used[std::size_t(token)] = false;
  text_table_.assign(table_size(texts_.size()), -1);
  for (std::size_t token = 0; token < texts_.size(); ++token) {
    if (!used[token]) continue;
    std::size_t at = spread(texts_[token]) & (text_table_.size() - 1);
    for (; text_table_[at] >= 0; at = (at + 1) & (text_table_.size() - 1))
      if (text(text_table_[at]) == texts_[token])
        throw DataError("{}: tokens {} and {} both stand for '{}'; expected each text once", where, text_table_[at],
                        token, excerpt(texts_[token]));
    text_table_[at] = Token(token);
  }
  for (std::size_t byte = 0; byte < of_byte_.size(); ++byte) {
    const char character = static_cast<char>(byte);
    of_byte_[byte] = find(std::string_view(&character, 1));
    if (of_byte_[byte] < 0)
      throw DataError("{}: no token stands for the byte 0x{:02X}; expected one for each of the 256", where, byte);
  }
  const MergePlaces numbered{where, {}};
  if (places == nullptr) places = &numbered;
  pair_keys_.assign(table_size(merges_.size()), empty_key);
  pair_values_.resize(pair_keys_.size());
  for (std::size_t rank = 0; rank < merges_.size(); ++rank) {
    const auto [left, right] = merges_[rank];
    const std::string joined = text(left) + text(right);
    const Token token = find(joined);
    if (token < 0)
      throw DataError("{} joins '{}' and '{}' to a text that no token stands for", places->place(rank),
                      excerpt(text(left)), excerpt(text(right)));
    std::size_t at = spread(key_of(left, right)) & (pair_keys_.size() - 1);
    for (; pair_keys_[at] != empty_key; at = (at + 1) & (pair_keys_.size() - 1))
      if (pair_keys_[at] == key_of(left, right))
        throw DataError("{} is the same as {}, of '{}' and '{}'; expected each once", places->place(rank),
                        places->mention(pair_values_[at].rank), excerpt(text(left)), excerpt(text(right)));
    pair_keys_[at] = key_of(left, right);
    pair_values_[at] = {std::uint32_t(rank), token};
  }
}

Token BytePairs::find(std::string_view wanted) const {
  for (std::size_t at = spread(wanted) & (text_table_.size() - 1); text_table_[at] >= 0;
       at = (at + 1) & (text_table_.size() - 1))
    if (text(text_table_[at]) == wanted) return text_table_[at];
  return -1;
}

BytePairs::Merged BytePairs::merged(Token left, Token right) const {
  const std::uint64_t key = key_of(left, right);
  for (std::size_t at = spread(key) & (pair_keys_.size() - 1); pair_keys_[at] != empty_key;
       at = (at + 1) & (pair_keys_.size() - 1))
    if (pair_keys_[at] == key) return pair_values_[at];
  return {none, -1};
}

void BytePairs::encode(std::string_view piece, std::vector<Token>& tokens) const {
  if (whole_pieces_)
    if (const Token token = find(piece); token >= 0) {
      tokens.push_back(token);
      return;
    }
  piece.size() <= short_bytes ? encode_short(piece, tokens) : encode_long(piece, tokens);
}

void BytePairs::encode_short(std::string_view piece, std::vector<Token>& tokens) const {
  std::array<Token, short_bytes> parts;
  std::array<Merged, short_bytes> pairs;  // of parts i and i + 1
  std::size_t count = piece.size();
  for (std::size_t i = 0; i < count; ++i) parts[i] = of_byte_[static_cast<unsigned char>(piece[i])];
  for (std::size_t i = 0; i + 1 < count; ++i) pairs[i] = merged(parts[i], parts[i + 1]);
  while (count > 1) {
    const auto best = std::min_element(pairs.begin(), pairs.begin() + long(count - 1),
                                       [](const Merged& a, const Merged& b) { return a.rank < b.rank; });
    if (best->rank == none) break;
    const auto i = std::size_t(best - pairs.begin());
    parts[i] = best->token;
    std::copy(parts.begin() + long(i + 2), parts.begin() + long(count), parts.begin() + long(i + 1));
    std::copy(pairs.begin() + long(i + 1), pairs.begin() + long(count - 1), pairs.begin() + long(i));
    --count;
    if (i > 0) pairs[i - 1] = merged(parts[i - 1], parts[i]);
    if (i + 1 < count) pairs[i] = merged(parts[i], parts[i + 1]);
  }
  tokens.insert(tokens.end(), parts.begin(), parts.begin() + long(count));
}

void BytePairs::encode_long(std::string_view piece, std::vector<Token>& tokens) const {
  // Parts are linked; a pair waits by rank and place, and is out of date where its parts have changed since.
  struct Part {
    Token token;
    std::uint32_t before, after;  // size() at the ends
  };
  using Pair = std::tuple<std::uint32_t, std::uint32_t, Token, Token>;  // rank, place of the left part, both tokens
  const auto end = std::uint32_t(piece.size());
  std::vector<Part> parts(piece.size());
  std::vector<Pair> waiting;
  for (std::uint32_t i = 0; i < end; ++i)
    parts[i] = {of_byte_[static_cast<unsigned char>(piece[i])], i == 0 ? end : i - 1, i + 1};
  for (std::uint32_t i = 0; i + 1 < end; ++i)
    if (const Merged m = merged(parts[i].token, parts[i + 1].token); m.rank != none)
      waiting.emplace_back(m.rank, i, parts[i].token, parts[i + 1].token);
  std::priority_queue<Pair, std::vector<Pair>, std::greater<>> queue(std::greater<>(), std::move(waiting));
  const auto offer = [&](std::uint32_t left) {
    const std::uint32_t right = parts[left].after;
    if (right == end) return;
    if (const Merged m = merged(parts[left].token, parts[right].token); m.rank != none)
      queue.emplace(m.rank, left, parts[left].token, parts[right].token);
  };
  while (!queue.empty()) {
    const auto [rank, left, left_token, right_token] = queue.top();
    queue.pop();
    const std::uint32_t right = parts[left].after;
    if (parts[left].token != left_token || right == end || parts[right].token != right_token) continue;
    parts[left] = {merged(left_token, right_token).token, parts[left].before, parts[right].after};
    parts[right].token = -1;
    if (parts[left].after != end) parts[parts[left].after].before = left;
    if (parts[left].before != end) offer(parts[left].before);
    offer(left);
  }
  for (std::uint32_t i = 0; i != end; i = parts[i].after) tokens.push_back(parts[i].token);
}

}  // namespace dekoder
