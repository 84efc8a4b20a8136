// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace dekoder {

/// What came of reading a number.
enum class Decimal {
  read,
  malformed,  ///< no number, or something besides it
  too_large,  ///< for the type
  too_small   ///< so near to zero that the type has only zero for it
};

/// Reads a text that is one whole decimal number and nothing else: -?[0-9]+. Leading zeros say nothing: 010 is ten.
template <std::integral T>
Decimal read_decimal(std::string_view text, T& value) {
  T number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (end != text.data() + text.size() || error == std::errc::invalid_argument) return Decimal::malformed;
  if (error == std::errc::result_out_of_range) return Decimal::too_large;
  value = number;
  return Decimal::read;
}

/// Reads a text that is one decimal number and nothing else, as 12, 0.5, .5, 5. and 1e-3: no inf, no nan, no hex.
Decimal read_decimal(std::string_view text, double& value);

/// "512 B", "12.1 KiB", "4.5 MiB", "1.25 GiB".
std::string bytes_text(std::uint64_t bytes);

/// "0:07", "59:59", "1:00:00": minutes or hours, and seconds.
std::string time_text(double seconds);

}  // namespace dekoder
