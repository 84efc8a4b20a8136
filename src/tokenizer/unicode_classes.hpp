// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace dekoder {

/// What the split patterns of tokenizers ask of a character.
enum class CharacterClass : std::uint8_t {
  letter,   ///< \p{L}: general categories Lu, Ll, Lt, Lm, Lo
  number,   ///< \p{N}: Nd, Nl, No
  newline,  ///< [\r\n]
  space,    ///< the rest of \s, Unicode's White_Space
  other     ///< [^\s\p{L}\p{N}]; bytes that are no UTF-8 too
};

/// The class of the character that stands at the front of a text, and its bytes: 1 to 4, at most those of a maximal
/// subpart where they are no UTF-8.
struct ClassifiedCharacter {
  CharacterClass kind;
  std::size_t bytes;
};
ClassifiedCharacter classified_front(std::string_view text);

}  // namespace dekoder
