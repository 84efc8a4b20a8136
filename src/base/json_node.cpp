// SPDX-License-Identifier: Apache-2.0
#include "base/json_node.hpp"

#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/utf8.hpp"

namespace dekoder {

namespace {

using Json = nlohmann::json;

constexpr std::size_t deepest = 32;

/// Builds a document as the parser meets its parts. Each function is named and called by the parser.
class Builder {
 public:
  Builder(std::string_view where, std::string_view expected) : where_(where), expected_(expected) {}
  Json document() { return std::move(root_); }

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(Json::number_integer_t value) { return put(value); }
  bool number_unsigned(Json::number_unsigned_t value) { return put(value); }
  bool number_float(Json::number_float_t value, const std::string&) { return put(value); }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(Json::binary_t&) { return false; }  // not in a text
  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& key) {
    const auto [member, is_new] = open_.back()->get_ref<Json::object_t&>().try_emplace(key);
    if (!is_new)
      throw DataError("{}: has the key '{}' twice in one object; expected each once", where_, excerpt(key));
    place_ = &member->second;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const Json::exception& error) {
    if (dynamic_cast<const Json::out_of_range*>(&error) != nullptr)
      throw DataError("{}: is no JSON for this program (a number lies beyond double precision); expected {}",
                      where_, expected_);
    throw DataError("{}: is no JSON ({}); expected {}", where_, excerpt(error.what(), 300), expected_);
  }

 private:
  bool put(Json value) {
    if (!open_.empty() && open_.back()->is_array()) {
      auto& list = open_.back()->get_ref<Json::array_t&>();
      place_ = &list.emplace_back(std::move(value));
    } else {
      *place_ = std::move(value);
    }
    return true;
  }
  bool open(Json value) {
    if (open_.size() == deepest)
      throw DataError("{}: nests deeper than {}; expected {}", where_, deepest, expected_);
    put(std::move(value));
    open_.push_back(place_);
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view where_, expected_;
  Json root_;
  Json* place_ = &root_;     ///< of the value that was met last, or that comes next
  std::vector<Json*> open_;  ///< objects and lists around it
};

}  // namespace

Json read_json(std::string_view text, std::string_view where, std::string_view expected) {
  if (const char* mark = byte_order_mark(text))
    throw DataError("{}: begins with a byte order mark ({}), which is no JSON; expected {}, in UTF-8 without one",
                    where, mark, expected);
  if (const std::size_t nul = text.find('\0'); nul != text.npos)  // which the library takes for the end
    throw DataError("{}: has a NUL byte at offset {}, which is no JSON; expected {}", where, nul, expected);
  Builder builder(where, expected);
  Json::sax_parse(text, &builder);
  return builder.document();
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
