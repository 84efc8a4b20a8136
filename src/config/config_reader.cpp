// SPDX-License-Identifier: Apache-2.0
#include "config/config_reader.hpp"

#include "base/error.hpp"
#include "base/utf8.hpp"

namespace dekoder {

namespace {

std::string position(const std::string& name, const YAML::Mark& mark) {
  return mark.is_null() ? name : fmt::format("{}:{}:{}", name, mark.line + 1, mark.column + 1);
}

std::string shown(const YAML::Node& node) {
  if (node.IsNull()) return "nothing";
  if (node.IsMap()) return "a map";
  if (node.IsSequence()) return "a list";
  return "'" + excerpt(node.Scalar()) + "'";
}

const std::vector<std::string>& all_keys() {
  static const std::vector<std::string> keys = [] {
    std::vector<std::string> names;
    RunConfig config;
    visit_fields(config, [&](std::string_view key, auto&, const Range&) { names.emplace_back(key); });
    return names;
  }();
  return keys;
}

bool is_key(const std::string& name) {
  return std::find(all_keys().begin(), all_keys().end(), name) != all_keys().end();
}

std::vector<std::string> all_sections() {
  std::vector<std::string> sections;
  for (const std::string& key : all_keys()) {
    const std::string section = key.substr(0, key.find('.'));
    if (sections.empty() || sections.back() != section) sections.push_back(section);
  }
  return sections;
}

/// The key meant by `full` ("section.key" or a lone word): its new name, the same last word in another section, or
/// the closest key.
std::string did_you_mean_key(const std::string& full, const ConfigFormat& format) {
  for (const KeyRename& rename : format.renames)
    if (rename.before == full)
      return fmt::format("; since version {} it is called '{}'", rename.version, rename.now);
  const std::string leaf = full.substr(full.find('.') + 1);
  for (const std::string& key : all_keys())
    if (!leaf.empty() && key.substr(key.find('.') + 1) == leaf) return fmt::format("; did you mean '{}'?", key);
  return did_you_mean(full, all_keys());
}

std::string unknown_section_remedy(const std::string& word, const std::vector<std::string>& sections,
                                   const ConfigFormat& format) {
  if (const std::string close = did_you_mean(word, sections); !close.empty()) return close;
  if (const std::string close = did_you_mean_key(word, format); !close.empty()) return close;
  return fmt::format("; expected one of {}", fmt::join(sections, ", "));
}

}  // namespace

void ConfigReader::read_text(const std::string& text, const std::string& name) {
  const std::optional<Utf8Fault> foreign = find_utf8_fault(text);
  const std::size_t zero = text.find('\0');  // YAML in UTF-16 has one in every other byte
  if (foreign && !(zero < foreign->offset))
    return fault(fmt::format("{}:{}:{}", name, foreign->line, foreign->column),
                 fmt::format("byte 0x{:02X} is not UTF-8; expected UTF-8 text: save the file in that encoding",
                             foreign->value));
  if (zero != std::string::npos)
    return fault(
        name,
        fmt::format("byte 0x00 at offset {} is no text; expected UTF-8: save the file in that encoding", zero));
  std::vector<YAML::Node> documents;
  try {
    documents = YAML::LoadAll(text);
  } catch (const YAML::Exception& error) {
    return fault(position(name, error.mark),
                 fmt::format("not valid YAML: {}; indent with spaces and write `key: value`", excerpt(error.msg)));
  }
  if (documents.size() > 1)
    return fault(position(name, documents[1].Mark()),
                 "a second YAML document starts before here; expected one: remove the line `---`");
  const YAML::Node root = documents.empty() ? YAML::Node() : documents.front();
  if (root.IsNull()) return fault(name, "the configuration is empty; expected sections such as `model:`");
  if (!root.IsMap())
    return fault(position(name, root.Mark()),
                 fmt::format("got {}; expected sections such as `model:`", shown(root)));
  for (const auto& entry : root)
    if (entry.first.IsScalar() && entry.first.Scalar() == "version") {
      read_version(name, entry.second);
      break;
    }
  if (version_ > format_.version) return;  // its keys may mean anything
  for (const auto& entry : root) read_section(name, entry.first, entry.second);
}

void ConfigReader::read_version(const std::string& name, const YAML::Node& value) {
  const std::string at = position(name, value.Mark());
  if (const std::string expected = read_value(value, version_, at_least(1)); !expected.empty())
    return fault(at, fmt::format("version is {}; expected {}", shown(value), expected));
  if (version_ > format_.version)
    fault(at,
          fmt::format("the configuration is of version {}; expected at most {}, which is as far as this dekoder "
                      "reads: take the dekoder that wrote it, or a later one",
                      version_, format_.version));
}

void ConfigReader::read_section(const std::string& name, const YAML::Node& key, const YAML::Node& section) {
  const std::string at = position(name, key.Mark());
  const std::string word = key.IsScalar() ? key.Scalar() : "";
  const std::vector<std::string> sections = all_sections();
  const bool renamed = std::any_of(format_.renames.begin(), format_.renames.end(), [&](const KeyRename& rename) {
    return version_ < rename.version && rename.before.starts_with(word + ".");
  });
  const bool known =
      renamed || word == "version" || std::find(sections.begin(), sections.end(), word) != sections.end();
  if (!known)
    return fault(at,
                 fmt::format("unknown section {}{}", shown(key), unknown_section_remedy(word, sections, format_)));
  if (!sections_.insert(word).second)
    return fault(at, word == "version"
                         ? "version stands here a second time; remove one"
                         : fmt::format("section '{}' stands here a second time; merge the two", word));
  if (section.IsNull() || word == "version") return;
  if (word == "data" && section.IsSequence()) return read_sources(name, section);
  if (!section.IsMap())
    return fault(position(name, section.Mark()),
                 fmt::format("section '{}' is {}; expected `key: value` lines", word, shown(section)));
  for (const auto& entry : section) read_key(name, word, entry.first, entry.second);
}

void ConfigReader::read_sources(const std::string& name, const YAML::Node& list) {
  YAML::Node tokens(YAML::NodeType::Sequence), weights(YAML::NodeType::Sequence);
  const std::size_t faults = faults_.size();
  const auto refuse = [&](std::size_t i, const YAML::Node& at, const std::string& what) {
    fault(position(name, at.Mark()),
          fmt::format("data[{}] {}; expected {{tokens: FILE, weight: NUMBER}}, the weight for all or none, or FILE",
                      i, what));
  };
  for (std::size_t i = 0; i < list.size(); ++i) {
    const YAML::Node source = list[i];
    if (source.IsScalar() && !(list[0].IsMap() && list[0]["weight"].IsDefined())) {
      tokens.push_back(source);
      continue;
    }
    if (!source.IsMap()) {
      refuse(i, source, "is " + shown(source));
      continue;
    }
    std::size_t files = 0, numbers = 0, unknown = 0;
    for (const auto& entry : source) {
      const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
      if (key == "tokens")
        tokens.push_back(entry.second), ++files;
      else if (key == "weight")
        weights.push_back(entry.second), ++numbers;
      else if (unknown++ == 0)
        refuse(
            i, entry.first,
            fmt::format("has the unknown key {}{}", shown(entry.first), did_you_mean(key, {"tokens", "weight"})));
    }
    if (unknown > 0) continue;
    if (files != 1 || numbers > 1)
      refuse(i, source, fmt::format("has {} tokens and {} weights", files, numbers));
    else if ((numbers == 1) != (list[0].IsMap() && list[0]["weight"].IsDefined()))
      refuse(i, source, numbers == 1 ? "has a weight, unlike data[0]" : "has no weight, unlike data[0]");
  }
  if (faults_.size() > faults) return;
  given_["data.tokens"] = {tokens, position(name, list.Mark())};
  if (weights.size() > 0) given_["data.weights"] = {weights, position(name, list.Mark())};
}

void ConfigReader::read_key(const std::string& name, const std::string& section, const YAML::Node& key,
                            const YAML::Node& value) {
  const std::string at = position(name, key.Mark());
  std::string full = section + "." + (key.IsScalar() ? key.Scalar() : "");
  for (const KeyRename& rename : format_.renames)
    if (version_ < rename.version && full == rename.before) full = rename.now;
  if (!is_key(full))
    return fault(
        at, fmt::format("unknown key {} in section '{}'{}", shown(key), section, did_you_mean_key(full, format_)));
  if (const auto before = given_.find(full); before != given_.end())
    return fault(at, fmt::format("{} was already set at {}; remove one", full, before->second.where));
  given_[full] = {value, position(name, value.IsNull() ? key.Mark() : value.Mark())};
}

void ConfigReader::read_set(const std::string& set) {
  const std::string where = "--set " + excerpt(set);
  if (const std::optional<Utf8Fault> foreign = find_utf8_fault(set))
    return fault(where, foreign->text() + "; expected UTF-8 text");
  const std::size_t equals = set.find('=');
  if (equals == std::string::npos)
    return fault(where, "no '='; expected section.key=value, e.g. training.steps=100");
  const std::string key = set.substr(0, equals);
  if (!is_key(key))
    return fault(where, fmt::format("unknown key '{}'{}", excerpt(key), did_you_mean_key(key, format_)));
  try {
    given_[key] = {YAML::Load(set.substr(equals + 1)), where};
  } catch (const YAML::Exception& error) {
    fault(where, fmt::format("not a YAML value: {}", excerpt(error.msg)));
  }
}

std::string ConfigReader::where(std::initializer_list<const char*> keys) const {
  for (const char* key : keys)
    if (const auto found = given_.find(key); found != given_.end()) return found->second.where;
  return fmt::format("default of {}", *keys.begin());
}

void ConfigReader::throw_faults() const {
  constexpr std::size_t most = 20;  // what somebody mends before the next try
  if (faults_.size() > most)
    throw ConfigError("{}\nand {} more", fmt::join(faults_.begin(), faults_.begin() + most, "\n"),
                      faults_.size() - most);
  if (!faults_.empty()) throw ConfigError("{}", fmt::join(faults_, "\n"));
}

void ConfigReader::wrong(const Given& given, const YAML::Node& shown_node, std::string_view key,
                         const std::string& expected) {
  wrong_keys_.emplace(key.substr(0, key.find('[')));
  fault(given.where, fmt::format("{} is {}; expected {}", key, shown(shown_node), expected));
}

}  // namespace dekoder
