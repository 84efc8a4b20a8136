// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/split_pattern.hpp"

#include "tokenizer/unicode_classes.hpp"

namespace dekoder {

namespace {

using enum CharacterClass;

/// Bytes at the front of `text` that are of class `kind`, at most `most` characters.
std::size_t run(CharacterClass kind, std::string_view text, std::size_t most = std::string_view::npos) {
  std::size_t at = 0;
  for (std::size_t count = 0; count < most && at < text.size(); ++count) {
    const ClassifiedCharacter next = classified_front(text.substr(at));
    if (next.kind != kind) break;
    at += next.bytes;
  }
  return at;
}

/// Bytes of `'s|'t|'re|'ve|'m|'ll|'d` at the front of `text`, or 0. In any case where `any_case`: then U+017F,
/// which folds to s, is an s too.
std::size_t contraction(std::string_view text, bool any_case) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const auto letter = [&](std::size_t at) {
    const char c = at < text.size() ? text[at] : '\0';
    return any_case && c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  };
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return letter(2) == 'e' ? 3 : 0;
    case 'l':
      return letter(2) == 'l' ? 3 : 0;
    default:
      return any_case && text.substr(1).starts_with("\u017F") ? 3 : 0;
  }
}

/// `\s+(?!\S)|\s+`: white space but for its last character, where that is not its only one and something follows.
/// With `line_ends`, `\s*[\r\n]+` before it: up to the last line end.
std::size_t white_space(std::string_view text, bool line_ends) {
  std::size_t at = 0, last = 0, line_end = 0;
  while (at < text.size()) {
    const ClassifiedCharacter next = classified_front(text.substr(at));
    if (next.kind != space && next.kind != newline) break;
    last = at;
    at += next.bytes;
    if (next.kind == newline) line_end = at;
  }
  if (line_ends && line_end > 0) return line_end;
  return at == text.size() || last == 0 ? at : last;
}

std::size_t front_piece_gpt2(std::string_view text) {
  if (const std::size_t bytes = contraction(text, false)) return bytes;
  const std::size_t blank = text[0] == ' ' && text.size() > 1 ? 1 : 0;
  const CharacterClass kind = classified_front(text.substr(blank)).kind;
  if (kind == letter || kind == number || kind == other) return blank + run(kind, text.substr(blank));
  return white_space(text, false);
}

std::size_t front_piece_cl100k(std::string_view text, std::size_t digits) {
  if (const std::size_t bytes = contraction(text, true)) return bytes;
  const ClassifiedCharacter first = classified_front(text);
  if (first.kind == number) return run(number, text, digits);
  if (first.kind == letter) return run(letter, text);
  const std::string_view rest = text.substr(first.bytes);
  if (first.kind != newline)
    if (const std::size_t letters = run(letter, rest)) return first.bytes + letters;
  const std::size_t blank = text[0] == ' ' ? 1 : 0;
  if (const std::size_t others = run(other, text.substr(blank)))
    return blank + others + run(newline, text.substr(blank + others));
  return white_space(text, true);
}

}  // namespace

const char* split_pattern_name(SplitPattern pattern) {
  switch (pattern) {
    case SplitPattern::gpt2:
      return "gpt2";
    case SplitPattern::cl100k:
      return "cl100k";
    case SplitPattern::qwen2:
      return "qwen2";
  }
  return "";
}

const char* split_pattern_regex(SplitPattern pattern) {
  switch (pattern) {
    case SplitPattern::gpt2:
      return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
    case SplitPattern::cl100k:
      return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    case SplitPattern::qwen2:
      return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  }
  return "";
}

std::size_t front_piece(SplitPattern pattern, std::string_view text) {
  switch (pattern) {
    case SplitPattern::gpt2:
      return front_piece_gpt2(text);
    case SplitPattern::cl100k:
      return front_piece_cl100k(text, 3);
    case SplitPattern::qwen2:
      return front_piece_cl100k(text, 1);
  }
  return text.size();
}

std::size_t last_safe_cut(std::string_view text) {
  for (std::size_t at = text.size(); at-- > 1;)
    if (text[at] == '\n' && ((text[at - 1] | 0x20) >= 'a' && (text[at - 1] | 0x20) <= 'z')) return at;
  return 0;
}

}  // namespace dekoder
