// SPDX-License-Identifier: Apache-2.0
#include "base/utf8.hpp"

#include <fmt/format.h>
#include <utf8proc.h>

namespace dekoder {

Utf8Front utf8_front(std::string_view text) {
  using Kind = Utf8Front::Kind;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {Kind::character, 1, lead};
  if (lead < 0xC2 || lead > 0xF4) return {Kind::invalid, 1, 0};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // the second byte's range is narrower after these lead bytes: no overlong forms, no surrogates, at most U+10FFFF
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  char32_t code_point = lead & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Kind::incomplete, i, 0};
    const bool fits = i == 1 ? byte(1) >= low && byte(1) <= high : (byte(i) & 0xC0u) == 0x80u;
    if (!fits) return {Kind::invalid, i, 0};
    code_point = code_point << 6 | (byte(i) & 0x3Fu);
  }
  return {Kind::character, length, code_point};
}

std::string Utf8Fault::text() const {
  return fmt::format("byte 0x{:02X} at offset {} is not UTF-8", value, offset);
}

std::optional<Utf8Fault> find_utf8_fault(std::string_view text) {
  Utf8Fault place{0, 1, 1, 0};
  while (place.offset < text.size()) {
    const Utf8Front front = utf8_front(text.substr(place.offset));
    place.value = static_cast<unsigned char>(text[place.offset]);
    if (front.kind != Utf8Front::Kind::character) return place;
    place.offset += front.bytes;
    ++place.column;
    if (front.code_point == U'\n') {
      ++place.line;
      place.column = 1;
    }
  }
  return std::nullopt;
}

namespace {

/// Appends the front of a text, with its bytes as `\xE9` where they are no character or one that `unwanted` takes.
template <class Unwanted>
void append_named(std::string& result, std::string_view text, const Utf8Front& front, const Unwanted& unwanted) {
  if (front.kind == Utf8Front::Kind::character && !unwanted(front.code_point))
    result += text.substr(0, front.bytes);
  else
    for (const char byte : text.substr(0, front.bytes))
      result += fmt::format("\\x{:02X}", static_cast<unsigned char>(byte));
}

template <class Unwanted>
std::string named(std::string_view text, const Unwanted& unwanted) {
  std::string result;
  while (!text.empty()) {
    const Utf8Front front = utf8_front(text);
    append_named(result, text, front, unwanted);
    text.remove_prefix(front.bytes);
  }
  return result;
}

bool is_control(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0);
}

}  // namespace

const char* byte_order_mark(std::string_view bytes) {
  if (bytes.starts_with("\xEF\xBB\xBF")) return "UTF-8";
  return bytes.starts_with("\xFF\xFE") || bytes.starts_with("\xFE\xFF") ? "UTF-16" : nullptr;
}

std::string with_invalid_bytes_named(std::string_view text) {
  return named(text, [](char32_t) { return false; });
}

std::string as_readable_utf8(std::string_view bytes) {
  return named(bytes, [](char32_t c) { return c == 0; });
}

std::string as_printable(std::string_view text) {
  return named(text, [](char32_t c) { return is_control(c) && c != '\n' && c != '\t'; });
}

std::string excerpt(std::string_view text, std::size_t most) {
  std::string result;
  for (std::string_view rest = text; !rest.empty();) {
    const Utf8Front front = utf8_front(rest);
    if (text.size() - rest.size() + front.bytes > most) return result + fmt::format("... ({} bytes)", text.size());
    append_named(result, rest, front, is_control);
    rest.remove_prefix(front.bytes);
  }
  return result;
}

std::size_t utf8_bytes(char32_t code_point) {
  return code_point < 0x80 ? 1 : code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
}

void append_utf8(std::string& text, char32_t code_point) {
  utf8proc_uint8_t bytes[4];
  const auto count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  for (utf8proc_ssize_t i = 0; i < count; ++i) text.push_back(static_cast<char>(bytes[i]));
}

std::string character_name(char32_t code_point) {
  const std::string number = fmt::format("U+{:04X}", static_cast<std::uint32_t>(code_point));
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return number;
    default:
      break;
  }
  std::string glyph;
  append_utf8(glyph, code_point);
  return fmt::format("'{}' ({})", glyph, number);
}

}  // namespace dekoder
