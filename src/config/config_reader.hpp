// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "config/config_format.hpp"
#include "config/setting_value.hpp"

namespace dekoder {

/// What a configuration says, by key, and everything that is wrong with it.
class ConfigReader {
 public:
  explicit ConfigReader(const ConfigFormat& format) : format_(format) {}

  /// The whole text of a file, which messages call `name`.
  void read_text(const std::string& text, const std::string& name);
  /// One --set: section.key=value, which wins over what was read before.
  void read_set(const std::string& set);

  /// Takes a key's value where there is one; a fault otherwise.
  template <class T>
  void take(std::string_view key, T& member, const Range& range) {
    const auto found = given_.find(std::string(key));
    if (found == given_.end()) return;
    const YAML::Node& node = found->second.value;
    if (const std::string expected = read_value(node, member, range); !expected.empty())
      wrong(found->second, node, key, expected);
  }
  template <class T>
  void take(std::string_view key, std::vector<T>& member, const Range& range) {
    const auto found = given_.find(std::string(key));
    if (found == given_.end()) return;
    const YAML::Node& node = found->second.value;
    if (!node.IsSequence()) {
      T any{};
      const std::string element = read_value(YAML::Node(YAML::NodeType::Null), any, range);
      return wrong(found->second, node, key, fmt::format("a list in [ ], each {}", element));
    }
    member.clear();
    for (std::size_t i = 0; i < node.size(); ++i) {
      T element{};
      const std::string expected = read_value(node[i], element, range);
      if (!expected.empty()) return wrong(found->second, node[i], fmt::format("{}[{}]", key, i), expected);
      member.push_back(element);
    }
  }

  bool given(const std::string& key) const { return given_.count(key) > 0; }
  /// Where the first of these keys that is given got its value; where none is, the name of the first.
  std::string where(std::initializer_list<const char*> keys) const;
  /// Whether the values of these keys are right, each for itself.
  bool sound(std::initializer_list<const char*> keys) const {
    return std::none_of(keys.begin(), keys.end(), [&](const char* key) { return wrong_keys_.count(key) > 0; });
  }
  void fault(const std::string& place, const std::string& what) { faults_.push_back(place + ": " + what); }
  /// Throws ConfigError with a line for every fault, where there are any.
  void throw_faults() const;

 private:
  /// One value of the file or of --set, with where it stands.
  struct Given {
    YAML::Node value;
    std::string where;  ///< "run.yaml:3:11" or "--set model.layers=4"
  };

  void read_version(const std::string& name, const YAML::Node& value);
  void read_section(const std::string& name, const YAML::Node& key, const YAML::Node& section);
  /// A list {tokens, weight}, ... as data.tokens and data.weights.
  void read_sources(const std::string& name, const YAML::Node& list);
  void read_key(const std::string& name, const std::string& section, const YAML::Node& key,
                const YAML::Node& value);
  /// `shown_node` is what is wrong in the value of a key, or a part of it.
  void wrong(const Given& given, const YAML::Node& shown_node, std::string_view key, const std::string& expected);

  const ConfigFormat& format_;
  int version_ = 1;  ///< of the file
  std::set<std::string> sections_;
  std::map<std::string, Given> given_;
  std::set<std::string> wrong_keys_;
  std::vector<std::string> faults_;
};

}  // namespace dekoder
