// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/tokenizer.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <stdexcept>

#include "base/base64.hpp"
#include "base/error.hpp"
#include "tokenizer/tokenizer_json.hpp"

namespace dekoder {

namespace {

constexpr char32_t replacement_character = 0xFFFD;
constexpr char32_t last_code_point = 0x10FFFF;
constexpr std::string_view sentencepiece_prefix = "sentencepiece ";

}  // namespace

const char* tokenizer_kind_name(TokenizerKind kind) {
  switch (kind) {
    case TokenizerKind::bytes:
      return "byte";
    case TokenizerKind::characters:
      return "char";
    case TokenizerKind::byte_pairs:
      return "bpe";
    case TokenizerKind::sentencepiece:
      return "sentencepiece";
  }
  return "";
}

Tokenizer Tokenizer::of_bytes() {
  return {};
}

Tokenizer Tokenizer::of_characters(std::vector<char32_t> code_points) {
  const bool ascending =
      std::adjacent_find(code_points.begin(), code_points.end(), std::greater_equal<>()) == code_points.end();
  if (code_points.empty() || !ascending || code_points.back() > last_code_point)
    throw std::logic_error("Tokenizer::of_characters: code points must ascend up to U+10FFFF");
  Tokenizer tokenizer;
  tokenizer.kind_ = TokenizerKind::characters;
  tokenizer.tokens_.assign(code_points.back() + 1, -1);
  for (std::size_t token = 0; token < code_points.size(); ++token)
    tokenizer.tokens_[code_points[token]] = static_cast<Token>(token);
  tokenizer.code_points_ = std::move(code_points);
  return tokenizer;
}

Tokenizer Tokenizer::of_byte_pairs(BytePairTokenizer rules) {
  Tokenizer tokenizer;
  tokenizer.kind_ = TokenizerKind::byte_pairs;
  tokenizer.byte_pairs_ = std::make_shared<const BytePairTokenizer>(std::move(rules));
  return tokenizer;
}

Tokenizer Tokenizer::of_sentencepiece(std::string model, std::string_view where) {
  Tokenizer tokenizer;
  tokenizer.kind_ = TokenizerKind::sentencepiece;
  tokenizer.sentencepiece_.emplace(std::move(model), where);
  return tokenizer;
}

bool Tokenizer::operator==(const Tokenizer& other) const {
  if (kind_ != other.kind_) return false;
  if (sentencepiece_) return *sentencepiece_ == *other.sentencepiece_;
  return byte_pairs_ ? *byte_pairs_ == *other.byte_pairs_ : code_points_ == other.code_points_;
}

std::string Tokenizer::to_text() const {
  if (byte_pairs_) return write_tokenizer_json(*byte_pairs_);
  if (sentencepiece_) return std::string(sentencepiece_prefix) + to_base64(sentencepiece_->model());
  std::string text = tokenizer_kind_name(kind_);
  for (const char32_t code_point : code_points_)
    fmt::format_to(std::back_inserter(text), " U+{:04X}", static_cast<std::uint32_t>(code_point));
  return text;
}

Tokenizer Tokenizer::from_text(std::string_view text, std::string_view where) {
  if (text == "byte") return of_bytes();
  if (text.starts_with('{')) return of_byte_pairs(read_tokenizer_json(text, fmt::format("{}: tokenizer", where)));
  if (text.starts_with(sentencepiece_prefix)) {
    std::optional<std::string> model = from_base64(text.substr(sentencepiece_prefix.size()));
    if (!model)
      throw DataError("{}: tokenizer '{}' is damaged, expected a model in base64", where, excerpt(text, 40));
    return of_sentencepiece(std::move(*model), fmt::format("{}: tokenizer", where));
  }
  constexpr std::string_view prefix = "char";
  if (!text.starts_with(prefix) || text.size() == prefix.size())
    throw DataError(
        "{}: tokenizer '{}' is unknown, expected 'byte', 'char' and its code points, a tokenizer.json, or "
        "'sentencepiece' and its model",
        where, excerpt(text));
  std::vector<char32_t> code_points;
  for (std::string_view rest = text.substr(prefix.size()); !rest.empty();) {
    const std::string_view item = rest.substr(0, rest.find(' ', 1));  // " U+000A"
    rest.remove_prefix(item.size());
    std::uint32_t value = 0;
    const char* end = item.data() + item.size();
    const bool named = item.starts_with(" U+") && item.size() > 3;
    const auto parsed = named ? std::from_chars(item.data() + 3, end, value, 16) : std::from_chars_result{};
    if (!named || parsed.ec != std::errc() || parsed.ptr != end || value > last_code_point)
      throw DataError("{}: '{}' in the tokenizer's vocabulary is no code point, expected e.g. U+0041", where,
                      excerpt(item));
    if (!code_points.empty() && value <= code_points.back())
      throw DataError("{}: the tokenizer's vocabulary does not ascend at U+{:04X}", where, value);
    code_points.push_back(value);
  }
  return of_characters(std::move(code_points));
}

std::vector<Token> Tokenizer::encode(std::string_view text, std::string_view where) const {
  if (sentencepiece_) return sentencepiece_->encode(text, where);
  std::vector<Token> tokens;
  if (byte_pairs_) {
    BytePairEncoder(*byte_pairs_).encode(text, SpecialTokens::recognised, tokens);
    return tokens;
  }
  tokens.reserve(text.size());
  if (kind_ == TokenizerKind::bytes) {
    for (const char character : text) tokens.push_back(static_cast<unsigned char>(character));
    return tokens;
  }
  std::set<char32_t> unknown;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Front front = utf8_front(text.substr(at));
    if (front.kind != Utf8Front::Kind::character)
      throw ConfigError("{}: byte 0x{:02X} at offset {} is not UTF-8, which the char tokenizer needs", where,
                        static_cast<unsigned char>(text[at]), at);
    const Token token = find(front.code_point);
    if (token < 0) unknown.insert(front.code_point);
    tokens.push_back(token);
    at += front.bytes;
  }
  if (!unknown.empty()) {
    constexpr std::size_t most = 20;
    std::string names;
    std::size_t named = 0;
    for (auto code_point = unknown.begin(); code_point != unknown.end() && named < most; ++code_point, ++named)
      names += (names.empty() ? "" : ", ") + character_name(*code_point);
    if (unknown.size() > named) names += fmt::format(" and {} more", unknown.size() - named);
    throw ConfigError("{}: the vocabulary of {} characters lacks {}; leave {} out (the byte tokenizer knows all)",
                      where, vocabulary(), names, unknown.size() == 1 ? "it" : "them");
  }
  return tokens;
}

void Tokenizer::append_bytes(std::string& text, Token token) const {
  if (token < 0 || token >= vocabulary())
    throw std::out_of_range(fmt::format("token {} is outside of the vocabulary of {}", token, vocabulary()));
  if (kind_ == TokenizerKind::bytes)
    text.push_back(static_cast<char>(token));
  else if (byte_pairs_)
    text += byte_pairs_->pairs().text(token);
  else if (sentencepiece_)
    text += sentencepiece_->text(token);
  else
    append_utf8(text, code_points_[static_cast<std::size_t>(token)]);
}

std::size_t Tokenizer::bytes_of(Token token) const {
  if (byte_pairs_) return byte_pairs_->is_special(token) ? 0 : byte_pairs_->pairs().text(token).size();
  if (sentencepiece_) return sentencepiece_->text(token).size();
  return kind_ == TokenizerKind::bytes ? 1 : utf8_bytes(code_points_.at(static_cast<std::size_t>(token)));
}

std::string Tokenizer::listed(Token token) const {
  std::string text;
  append_bytes(text, token);
  return text.empty() && sentencepiece_ ? sentencepiece_->name(token) : text;
}

std::string Tokenizer::decode(std::span<const Token> tokens) const {
  StreamDecoder decoder(*this);
  std::string text;
  for (const Token token : tokens) text += decoder.push(token);
  return text + decoder.finish();
}

std::string StreamDecoder::push(Token token) {
  tokenizer_.append_bytes(held_back_, token);
  std::string text;
  std::size_t at = 0;
  while (at < held_back_.size()) {
    const Utf8Front front = utf8_front(std::string_view(held_back_).substr(at));
    if (front.kind == Utf8Front::Kind::incomplete) break;
    append_utf8(text, front.kind == Utf8Front::Kind::character ? front.code_point : replacement_character);
    at += front.bytes;
  }
  held_back_.erase(0, at);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  if (!held_back_.empty()) append_utf8(text, replacement_character);
  held_back_.clear();
  return text;
}

}  // namespace dekoder
