// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/unicode_classes.hpp"

#include <utf8proc.h>

#include <array>

#include "base/utf8.hpp"

namespace dekoder {

namespace {

/// Unicode's property White_Space (PropList.txt).
bool is_white_space(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

CharacterClass class_of(char32_t c) {
  if (c == U'\r' || c == U'\n') return CharacterClass::newline;
  if (is_white_space(c)) return CharacterClass::space;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharacterClass::letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharacterClass::number;
    default:
      return CharacterClass::other;
  }
}

const std::array<CharacterClass, 128> ascii = [] {
  std::array<CharacterClass, 128> classes;
  for (std::size_t c = 0; c < classes.size(); ++c) classes[c] = class_of(char32_t(c));
  return classes;
}();

}  // namespace

ClassifiedCharacter classified_front(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 128) return {ascii[first], 1};
  const Utf8Front front = utf8_front(text);
  return {front.kind == Utf8Front::Kind::character ? class_of(front.code_point) : CharacterClass::other,
          front.bytes};
}

}  // namespace dekoder
