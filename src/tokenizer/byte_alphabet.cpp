// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/byte_alphabet.hpp"

#include <algorithm>

#include "base/utf8.hpp"

namespace dekoder {

namespace {

constexpr bool prints_in_latin1(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

}  // namespace

const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet alphabet = [] {
    ByteAlphabet made;
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      made.character_of[std::size_t(byte)] = prints_in_latin1(byte) ? char32_t(byte) : next++;
      made.in_order[std::size_t(byte)] = static_cast<unsigned char>(byte);
    }
    std::sort(made.in_order.begin(), made.in_order.end(),
              [&](unsigned char a, unsigned char b) { return made.character_of[a] < made.character_of[b]; });
    return made;
  }();
  return alphabet;
}

std::string in_byte_alphabet(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) append_utf8(text, byte_alphabet().character_of[static_cast<unsigned char>(byte)]);
  return text;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  static const std::array<int, 0x144> byte_of = [] {
    std::array<int, 0x144> made;
    made.fill(-1);
    for (int byte = 0; byte < 256; ++byte) made[byte_alphabet().character_of[std::size_t(byte)]] = byte;
    return made;
  }();
  std::string bytes;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Front front = utf8_front(text.substr(at));
    if (front.kind != Utf8Front::Kind::character || front.code_point >= byte_of.size() ||
        byte_of[front.code_point] < 0)
      return std::nullopt;
    bytes.push_back(static_cast<char>(byte_of[front.code_point]));
    at += front.bytes;
  }
  return bytes;
}

}  // namespace dekoder
