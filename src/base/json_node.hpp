// SPDX-License-Identifier: Apache-2.0
// JSON files that others wrote, read strictly: every refusal names the place, what is there and what is expected.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace dekoder {

/// The document of a text. Throws DataError, beginning with `where`, for what is no JSON, nests deeper than 32
/// (files of models: 6 or less) or has a key twice in one object, of which readers take either; `expected` says
/// what the text should have been: "a tokenizer.json".
nlohmann::json read_json(std::string_view text, std::string_view where, std::string_view expected);

/// A part of a document with its place for messages.
struct JsonNode {
  const nlohmann::json& value;
  std::string place;  ///< "tokenizer.json: model.vocab"; of the whole: "tokenizer.json:"

  /// Throws DataError: "<place> is <value>; expected <expected>".
  [[noreturn]] void refuse(std::string_view expected) const;
  /// The member; null where it is not there.
  JsonNode operator[](std::string_view key) const;
  bool is_null() const { return value.is_null(); }
  const std::string& text() const;
  bool flag() const;
  bool flag(bool otherwise) const { return is_null() ? otherwise : flag(); }
  const nlohmann::json::array_t& list() const;
  JsonNode at(std::size_t i) const;
  /// A whole number from `low` to `high`; `what` names it: "a token".
  std::int64_t whole(std::int64_t low, std::int64_t high, std::string_view what = "a whole number") const;
  double number() const;
};

}  // namespace dekoder
