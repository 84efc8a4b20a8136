// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dekoder {

/// Bytes as base64 (RFC 4648, section 4) in one line, with padding.
std::string to_base64(std::string_view bytes);

/// The reverse; nothing where the text is no base64: another character, a line's end too, a length that is no
/// multiple of 4, or bits behind the last byte that are not 0. Each sequence of bytes so has one text.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace dekoder
