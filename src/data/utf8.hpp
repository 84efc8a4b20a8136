// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace dekoder {

/// What stands at the front of a piece of text.
struct Utf8Front {
  enum class Kind {
    character,   ///< a code point of `bytes` bytes
    incomplete,  ///< the text ends within a sequence that is right so far
    invalid      ///< `bytes` bytes that no further bytes can mend
  } kind;
  std::size_t bytes;
  char32_t code_point;  ///< of a character
};

/// Looks at the front of `text`, which is not empty. UTF-8 as in the Unicode Standard, table 3-7: no surrogates, no
/// overlong forms, nothing above U+10FFFF; invalid bytes are cut into maximal subparts (section 3.9, U+FFFD
/// substitution).
Utf8Front utf8_front(std::string_view text);

/// Bytes of a code point in UTF-8: 1 to 4.
std::size_t utf8_bytes(char32_t code_point);

void append_utf8(std::string& text, char32_t code_point);

/// How a message names a character: `'é' (U+00E9)`, or `U+0007` alone where it has no visible form of its own.
std::string character_name(char32_t code_point);

}  // namespace dekoder
