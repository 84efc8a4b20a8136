// SPDX-License-Identifier: Apache-2.0
// One value of a setting, read from a word or a YAML node and written as YAML.
#pragma once

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/closest_word.hpp"
#include "config/config_fields.hpp"

namespace dekoder {

// read_number and read_value put what they read into `value` and return "", or return what was expected instead.

/// A decimal number (read_decimal) within the range; a double also within it once it is a float, below the smallest
/// of which there is only zero, as kernels take it (Range::as_float).
std::string read_number(std::string_view text, int& value, const Range& range);
std::string read_number(std::string_view text, long& value, const Range& range);
std::string read_number(std::string_view text, std::uint64_t& value, const Range& range);
std::string read_number(std::string_view text, double& value, const Range& range);

template <class T>
concept Number =
    std::same_as<T, int> || std::same_as<T, long> || std::same_as<T, std::uint64_t> || std::same_as<T, double>;

/// The scalar of a node that is neither in quotes nor tagged as a text; else "".
std::string plain_word(const YAML::Node& node);

std::string read_value(const YAML::Node& node, bool& value, const Range& = {});
std::string read_value(const YAML::Node& node, std::string& value, const Range& = {});

template <Number T>
std::string read_value(const YAML::Node& node, T& value, const Range& range = {}) {
  return read_number(plain_word(node), value, range);
}

/// A text, which is a list of one, or a list of texts.
std::string read_value(const YAML::Node& node, TokenFiles& value, const Range& = {});

/// One of an enum's names.
template <class Enum>
  requires std::is_enum_v<Enum>
std::string read_value(const YAML::Node& node, Enum& value, const Range& = {}) {
  constexpr auto names = names_of(Enum{});
  const std::string word = node.IsScalar() ? node.Scalar() : "";
  for (std::size_t i = 0; i < names.size(); ++i)
    if (node.IsScalar() && word == names[i]) return value = static_cast<Enum>(i), "";
  return fmt::format("one of {}{}", fmt::join(names, ", "), did_you_mean(word, {names.begin(), names.end()}));
}

// yaml_value writes what YAML 1.1 (PyYAML) and YAML 1.2 read back as the same value of the same type.

/// A text as a double-quoted scalar; what readers refuse or take for a line end, and noncharacters, are escapes.
std::string quoted(const std::string& text);

inline std::string yaml_value(bool value) {
  return value ? "true" : "false";
}
inline std::string yaml_value(const std::string& value) {
  return quoted(value);
}
/// The shortest digits that give the same double, with a point where there is an exponent: YAML 1.1 takes 1e-05 for
/// a text.
std::string yaml_value(double value);
inline std::string yaml_value(std::integral auto value) {
  return fmt::format("{}", value);
}
template <class Enum>
  requires std::is_enum_v<Enum>
std::string yaml_value(Enum value) {
  return std::string(names_of(Enum{})[static_cast<std::size_t>(value)]);
}
template <class T>
std::string yaml_value(const std::vector<T>& values) {
  std::string list;
  for (const T& value : values) list += (list.empty() ? "" : ", ") + yaml_value(value);
  return "[" + list + "]";
}
inline std::string yaml_value(const TokenFiles& files) {
  return files.size() == 1 ? yaml_value(files.front()) : yaml_value<std::string>(files);
}

}  // namespace dekoder
