// SPDX-License-Identifier: Apache-2.0
#include "config/setting_value.hpp"

#include <cmath>
#include <limits>

#include "base/decimal.hpp"
#include "base/utf8.hpp"

namespace dekoder {

namespace {

bool within(double number, const Range& range) {
  const bool low = range.above ? number > range.low : number >= range.low;
  const bool high = range.below ? number < range.high : number <= range.high;
  return std::isfinite(number) && low && high;
}

std::string range_text(const Range& range) {
  const bool low = std::isfinite(range.low), high = std::isfinite(range.high);
  if (low && high)
    return fmt::format(" {} {} {} {}", range.above ? "above" : "from", range.low, range.below ? "to below" : "to",
                       range.high);
  if (low) return fmt::format(" {} {}", range.above ? "above" : "of at least", range.low);
  return "";
}

template <class T>
std::string read_in_range(std::string_view text, T& value, const Range& range) {
  const std::string expected = (std::is_integral_v<T> ? "a whole number" : "a number") + range_text(range);
  T read{};
  const Decimal result = read_decimal(text, read);
  if (result == Decimal::too_large) return expected + fmt::format(" and at most {}", std::numeric_limits<T>::max());
  if (result != Decimal::read && result != Decimal::too_small) return expected;
  if (result == Decimal::read && !within(static_cast<double>(read), range)) return expected;
  if constexpr (std::is_same_v<T, double>) {
    constexpr double least = std::numeric_limits<float>::min();  // below, kernels flush to zero
    const double kernel = std::abs(read) < least ? 0.0 : static_cast<double>(static_cast<float>(read));
    const bool vanishes = result == Decimal::too_small || (read != 0 && kernel == 0);
    if ((range.as_float || result == Decimal::too_small) && (vanishes || !within(kernel, range)))
      return fmt::format(
          "{} in single precision, where it is {}{}", expected, kernel,
          vanishes ? fmt::format(": write {}{:.3g} or more", range.low == 0 && !range.above ? "0, or " : "", least)
                   : "");
  }
  value = read;
  return "";
}

}  // namespace

std::string read_number(std::string_view text, int& value, const Range& range) {
  return read_in_range(text, value, range);
}
std::string read_number(std::string_view text, long& value, const Range& range) {
  return read_in_range(text, value, range);
}
std::string read_number(std::string_view text, std::uint64_t& value, const Range& range) {
  return read_in_range(text, value, range);
}
std::string read_number(std::string_view text, double& value, const Range& range) {
  return read_in_range(text, value, range);
}

std::string plain_word(const YAML::Node& node) {
  const std::string& tag = node.Tag();  // "?": none
  const bool plain = tag.empty() || tag == "?" || tag == "tag:yaml.org,2002:int" ||
                     tag == "tag:yaml.org,2002:float" || tag == "tag:yaml.org,2002:bool";
  return node.IsScalar() && plain ? node.Scalar() : "";
}

std::string read_value(const YAML::Node& node, bool& value, const Range&) {
  const std::string word = plain_word(node);
  if (word != "true" && word != "false") return "true or false";
  value = word == "true";
  return "";
}

std::string read_value(const YAML::Node& node, std::string& value, const Range&) {
  if (!node.IsScalar()) return "a text";
  value = node.Scalar();
  return "";
}

std::string read_value(const YAML::Node& node, TokenFiles& value, const Range&) {
  value.clear();
  const auto add = [&](const YAML::Node& file) { return read_value(file, value.emplace_back()).empty(); };
  if (node.IsScalar() && node.Scalar().empty()) return "";  // older records of none
  if (node.IsSequence() ? std::all_of(node.begin(), node.end(), add) : add(node)) return "";
  return "a path, or a list of paths in [ ]";
}

std::string yaml_value(double value) {
  std::string text = fmt::format("{}", value);
  const std::size_t exponent = text.find('e');
  if (exponent != std::string::npos && text.find('.') == std::string::npos) text.insert(exponent, ".0");
  return text;
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (std::string_view rest = text; !rest.empty();) {
    const Utf8Front front = utf8_front(rest);
    const char32_t c = front.code_point;
    // YAML 1.2, 5.1, 5.2 and 5.4: not printable, a line end to YAML 1.1, or a byte-order mark.
    const bool refused = c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029 || c == 0xFEFF;
    if (front.kind != Utf8Front::Kind::character) {
      result += rest.substr(0, front.bytes);
    } else if (c == U'"' || c == U'\\') {
      result += fmt::format("\\{}", rest[0]);
    } else if (c == U'\n') {
      result += "\\n";
    } else if (refused || is_noncharacter(c)) {
      const auto number = static_cast<std::uint32_t>(c);
      result += c < 0x80      ? fmt::format("\\x{:02x}", number)
                : c < 0x10000 ? fmt::format("\\u{:04x}", number)
                              : fmt::format("\\U{:08x}", number);
    } else {
      result += rest.substr(0, front.bytes);
    }
    rest.remove_prefix(front.bytes);
  }
  return result + "\"";
}

}  // namespace dekoder
