// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/byte_pair_tokenizer.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

#include "base/error.hpp"
#include "base/utf8.hpp"

namespace dekoder {

namespace {

constexpr std::size_t known_pieces = 1 << 14;  ///< 1 MiB: the second level of caches

/// Appends the text in Unicode's form NFC; bytes that are no UTF-8 stay as they are.
void append_composed(std::string& result, std::string_view text) {
  while (!text.empty()) {
    const std::optional<Utf8Fault> fault = find_utf8_fault(text);
    const std::string_view good = text.substr(0, fault ? fault->offset : text.size());
    utf8proc_uint8_t* made = nullptr;
    const auto bytes =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(good.data()), utf8proc_ssize_t(good.size()), &made,
                     utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (bytes < 0) throw std::bad_alloc();  // the text is valid: nothing else can be wrong
    result.append(reinterpret_cast<const char*>(made), std::size_t(bytes));
    std::free(made);
    text.remove_prefix(good.size());
    if (!fault) break;
    const std::size_t bad = utf8_front(text).bytes;
    result.append(text.substr(0, bad));
    text.remove_prefix(bad);
  }
}

/// As append_composed. A character of ASCII never joins what stands before it, and nothing below U+0300 (bytes CC
/// 80) changes by itself: most of a text is only copied.
std::string composed(std::string_view text) {
  const auto is_ascii = [](char byte) { return static_cast<unsigned char>(byte) < 0x80; };
  std::string result;
  result.reserve(text.size());
  for (auto at = text.begin(); at != text.end();) {
    auto first = std::find_if_not(at, text.end(), is_ascii);
    const auto end = std::find_if(first, text.end(), is_ascii);
    if (std::any_of(first, end, [](char byte) { return static_cast<unsigned char>(byte) >= 0xCC; })) {
      if (first != at) --first;  // a mark may follow it
      result.append(at, first);
      append_composed(result, {first, end});
    } else {
      result.append(at, end);
    }
    at = end;
  }
  return result;
}

}  // namespace

BytePairTokenizer::BytePairTokenizer(BytePairs pairs, SplitPattern pattern, std::vector<AddedToken> added,
                                     bool composes, std::string_view where)
    : pairs_(std::move(pairs)), pattern_(pattern), added_(std::move(added)), composes_(composes) {
  std::set<std::string_view> texts;
  for (const AddedToken& a : added_)
    if (a.text.empty() || !texts.insert(a.text).second)
      throw DataError("{}: the added token {} is '{}'; expected a text, each once", where, a.token,
                      excerpt(a.text));
  for (const AddedToken& a : added_)
    if (last_safe_cut(a.text) > 0)
      throw DataError("{}: the added token {} is '{}'; expected no line feed behind a letter: texts are cut there",
                      where, a.token, excerpt(a.text));
  for (const char* name : {end_of_text_name, "<|end_of_text|>", "</s>"})
    for (const AddedToken& a : added_)
      if (end_of_text_ < 0 && a.special && a.text == name) end_of_text_ = a.token;
}

bool BytePairTokenizer::is_special(Token token) const {
  const auto found = std::lower_bound(added_.begin(), added_.end(), token,
                                      [](const AddedToken& a, Token wanted) { return a.token < wanted; });
  return found != added_.end() && found->token == token && found->special;
}

BytePairEncoder::BytePairEncoder(const BytePairTokenizer& tokenizer) : tokenizer_(tokenizer), known_(known_pieces) {
  for (const AddedToken& added : tokenizer.added()) {
    Marks& marks = added.normalized ? normalized_ : as_they_are_;
    marks.longest_first.push_back(
        {added.normalized && tokenizer.composes() ? composed(added.text) : added.text, added.token, added.special});
    marks.first_bytes[static_cast<unsigned char>(marks.longest_first.back().text[0])] = true;
  }
  for (Marks* marks : {&as_they_are_, &normalized_})
    std::stable_sort(marks->longest_first.begin(), marks->longest_first.end(),
                     [](const auto& a, const auto& b) { return a.text.size() > b.text.size(); });
}

std::pair<const BytePairEncoder::Marks::Mark*, std::size_t> BytePairEncoder::Marks::find(
    std::string_view text, SpecialTokens special) const {
  const auto counts = [&](const Mark& mark) { return special == SpecialTokens::recognised || !mark.special; };
  if (std::any_of(longest_first.begin(), longest_first.end(), counts))
    for (std::size_t at = 0; at < text.size(); ++at) {
      if (!first_bytes[static_cast<unsigned char>(text[at])]) continue;
      for (const Mark& mark : longest_first)
        if (counts(mark) && text.substr(at).starts_with(mark.text)) return {&mark, at};
    }
  return {nullptr, std::string_view::npos};
}

template <class EncodeRest>
void BytePairEncoder::encode_around(const Marks& marks, std::string_view text, SpecialTokens special,
                                    std::vector<Token>& tokens, EncodeRest encode_rest) {
  for (;;) {
    const auto [mark, at] = marks.find(text, special);
    encode_rest(text.substr(0, at));
    if (mark == nullptr) return;
    tokens.push_back(mark->token);
    text.remove_prefix(at + mark->text.size());
  }
}

void BytePairEncoder::encode(std::string_view text, SpecialTokens special, std::vector<Token>& tokens) {
  encode_around(as_they_are_, text, special, tokens, [&](std::string_view part) {
    const std::string normal = tokenizer_.composes() ? composed(part) : "";
    encode_around(normalized_, tokenizer_.composes() ? normal : part, special, tokens,
                  [&](std::string_view rest) { encode_pieces(rest, tokens); });
  });
}

void BytePairEncoder::encode_pieces(std::string_view text, std::vector<Token>& tokens) {
  while (!text.empty()) {
    const std::string_view piece = text.substr(0, front_piece(tokenizer_.pattern(), text));
    text.remove_prefix(piece.size());
    if (piece.size() > sizeof(Known::piece)) {
      tokenizer_.pairs().encode(piece, tokens);
      continue;
    }
    std::uint64_t hash = piece.size();
    for (const char byte : piece) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x9E3779B97F4A7C15;
    Known& known = known_[std::size_t(hash >> 32) % known_pieces];
    if (known.bytes != piece.size() || std::memcmp(known.piece, piece.data(), piece.size()) != 0) {
      const std::size_t first = tokens.size();
      tokenizer_.pairs().encode(piece, tokens);
      const std::size_t count = tokens.size() - first;
      if (count > std::size(known.tokens)) continue;
      known.bytes = static_cast<unsigned char>(piece.size());
      known.count = static_cast<unsigned char>(count);
      std::memcpy(known.piece, piece.data(), piece.size());
      std::copy(tokens.begin() + long(first), tokens.end(), known.tokens);
      continue;
    }
    tokens.insert(tokens.end(), known.tokens, known.tokens + known.count);
  }
}

}  // namespace dekoder
