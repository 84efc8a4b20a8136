// SPDX-License-Identifier: Apache-2.0
#include "base/decimal.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

namespace dekoder {

Decimal read_decimal(std::string_view text, double& value) {
  // from_chars takes inf and nan too: what is left of a sign begins with a digit or a point.
  const std::string_view unsigned_text = text.starts_with('-') ? text.substr(1) : text;
  if (unsigned_text.empty() || std::string_view("0123456789.").find(unsigned_text[0]) == std::string_view::npos)
    return Decimal::malformed;
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (end != text.data() + text.size() || error == std::errc::invalid_argument) return Decimal::malformed;
  if (error == std::errc::result_out_of_range)  // from_chars does not say at which end
    return std::isinf(std::strtod(std::string(text).c_str(), nullptr)) ? Decimal::too_large : Decimal::too_small;
  value = number;
  return Decimal::read;
}

std::string bytes_text(std::uint64_t bytes) {
  const double size = double(bytes);
  if (size < 0x1p10) return fmt::format("{} B", bytes);
  if (size < 0x1p20) return fmt::format("{:.1f} KiB", size / 0x1p10);
  if (size < 0x1p30) return fmt::format("{:.1f} MiB", size / 0x1p20);
  return fmt::format("{:.2f} GiB", size / 0x1p30);
}

std::string time_text(double seconds) {
  const long whole = std::lround(seconds);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

}  // namespace dekoder
