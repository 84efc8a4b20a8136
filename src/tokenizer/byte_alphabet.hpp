// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace dekoder {

/// GPT-2's alphabet: a visible character for every byte, so that tokens of bytes can be written as text. The bytes
/// that print in Latin-1 are their own code points, the others U+0100 and up, in ascending order.
struct ByteAlphabet {
  std::array<char32_t, 256> character_of;
  std::array<unsigned char, 256> in_order;  ///< bytes by their characters, ascending: ids 0 to 255 of a vocabulary
};
const ByteAlphabet& byte_alphabet();

/// Bytes in the alphabet, as UTF-8.
std::string in_byte_alphabet(std::string_view bytes);
/// The reverse; nothing where a character is not of the alphabet.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace dekoder
