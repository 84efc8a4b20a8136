// SPDX-License-Identifier: Apache-2.0
#include "base/json_node.hpp"

#include <unordered_set>
#include <vector>

#include "base/error.hpp"
#include "base/utf8.hpp"

namespace dekoder {

namespace {

using Json = nlohmann::json;

constexpr int deepest = 32;

}  // namespace

Json read_json(std::string_view text, std::string_view where, std::string_view expected) {
  std::vector<std::unordered_set<std::string>> keys;
  const auto check = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > deepest) throw DataError("{}: nests deeper than {}; expected {}", where, deepest, expected);
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      throw DataError("{}: has the key '{}' twice in one object; expected each once", where,
                      excerpt(value.get<std::string>()));
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const Json::exception& error) {
    throw DataError("{}: is no JSON ({}); expected {}", where, excerpt(error.what(), 300), expected);
  }
}

void JsonNode::refuse(std::string_view expected) const {
  throw DataError("{} is {}; expected {}", place,
                  excerpt(value.dump(-1, ' ', false, Json::error_handler_t::replace)), expected);
}

JsonNode JsonNode::operator[](std::string_view key) const {
  static const Json null;
  if (!value.is_object()) refuse("an object");
  const auto found = value.find(key);
  return {found == value.end() ? null : *found,
          fmt::format("{}{}{}", place, place.ends_with(':') ? " " : ".", key)};
}

const std::string& JsonNode::text() const {
  if (!value.is_string()) refuse("a text");
  return value.get_ref<const std::string&>();
}

bool JsonNode::flag() const {
  if (!value.is_boolean()) refuse("true or false");
  return value.get<bool>();
}

const Json::array_t& JsonNode::list() const {
  if (!value.is_array()) refuse("a list");
  return value.get_ref<const Json::array_t&>();
}

JsonNode JsonNode::at(std::size_t i) const {
  return {list()[i], fmt::format("{}[{}]", place, i)};
}

std::int64_t JsonNode::whole(std::int64_t low, std::int64_t high, std::string_view what) const {
  const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= std::uint64_t(INT64_MAX)
                                               : value.is_number_integer();
  if (!fits || value.get<std::int64_t>() < low || value.get<std::int64_t>() > high)
    refuse(fmt::format("{}, {} to {}", what, low, high));
  return value.get<std::int64_t>();
}

double JsonNode::number() const {
  if (!value.is_number()) refuse("a number");
  return value.get<double>();
}

}  // namespace dekoder
