// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
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

/// The first bytes of a text that are no UTF-8, as a message names them.
struct Utf8Fault {
  std::size_t offset;   ///< bytes before it
  std::size_t line;     ///< counted from 1
  std::size_t column;   ///< characters, counted from 1
  unsigned char value;  ///< of the first byte

  /// "byte 0xE9 at offset 3 is not UTF-8"
  std::string text() const;
};
std::optional<Utf8Fault> find_utf8_fault(std::string_view text);

/// The encoding that a byte order mark at the front of a file names, "UTF-8" or "UTF-16"; null where there is none.
const char* byte_order_mark(std::string_view bytes);

/// The text with every byte that is no UTF-8 written as `\xE9`, for messages.
std::string with_invalid_bytes_named(std::string_view text);

/// Bytes as text that every reader of UTF-8 takes: a byte that is none, and a NUL, as `\xC3`.
std::string as_readable_utf8(std::string_view bytes);

/// A message as a terminal may show it, in its lines: control characters, which move the cursor or recolour what
/// follows, but for line ends and tabs, and bytes that are no UTF-8 by their numbers. Names of files have any.
std::string as_printable(std::string_view text);

/// A text of the user as a message quotes it: in one line, control characters and bytes that are no UTF-8 by their
/// numbers, and after `most` bytes no more of it than its length: `aaaa\x0A... (3000000 bytes)`.
std::string excerpt(std::string_view text, std::size_t most = 100);

/// One of the 66 code points that Unicode never gives to a character (section 23.7): valid in UTF-8.
constexpr bool is_noncharacter(char32_t c) {
  return (c >= 0xFDD0 && c <= 0xFDEF) || (c & 0xFFFE) == 0xFFFE;
}

/// Bytes of a code point in UTF-8: 1 to 4.
std::size_t utf8_bytes(char32_t code_point);

void append_utf8(std::string& text, char32_t code_point);

/// How a message names a character: `'é' (U+00E9)`, or `U+0007` alone where it has no visible form of its own.
std::string character_name(char32_t code_point);

}  // namespace dekoder
