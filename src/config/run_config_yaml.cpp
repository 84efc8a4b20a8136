// SPDX-License-Identifier: Apache-2.0
#include "config/run_config_yaml.hpp"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "base/error.hpp"
#include "config/closest_word.hpp"
#include "config/config_fields.hpp"

namespace dekoder {

namespace {

/// One value of the file or of --set, with where it stands.
struct Given {
  YAML::Node value;
  std::string where;  ///< "run.yaml:3:11" or "--set model.layers=4"
};

std::string position(const std::string& name, const YAML::Mark& mark) {
  return mark.is_null() ? name : fmt::format("{}:{}:{}", name, mark.line + 1, mark.column + 1);
}

std::string shown(const YAML::Node& node) {
  if (node.IsNull()) return "nothing";
  if (node.IsMap()) return "a map";
  if (node.IsSequence()) return "a list";
  return "'" + node.Scalar() + "'";
}

const std::vector<std::string>& all_keys() {
  static const std::vector<std::string> keys = [] {
    std::vector<std::string> names;
    RunConfig config;
    visit_fields(config, [&](std::string_view key, auto&, Range) { names.emplace_back(key); });
    return names;
  }();
  return keys;
}

std::vector<std::string> all_sections() {
  std::vector<std::string> sections;
  for (const std::string& key : all_keys()) {
    const std::string section = key.substr(0, key.find('.'));
    if (sections.empty() || sections.back() != section) sections.push_back(section);
  }
  return sections;
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates) {
  const std::string closest = closest_word(word, candidates);
  return closest.empty() ? "" : fmt::format("; did you mean '{}'?", closest);
}

/// The key meant by `full` ("section.key" or a lone word): the same last word in another section, or the closest
/// key.
std::string did_you_mean_key(const std::string& full) {
  const std::string leaf = full.substr(full.find('.') + 1);
  for (const std::string& key : all_keys())
    if (!leaf.empty() && key.substr(key.find('.') + 1) == leaf) return fmt::format("; did you mean '{}'?", key);
  return did_you_mean(full, all_keys());
}

std::string unknown_section_remedy(const std::string& word, const std::vector<std::string>& sections) {
  if (const std::string close = did_you_mean(word, sections); !close.empty()) return close;
  if (const std::string close = did_you_mean_key(word); !close.empty()) return close;
  return fmt::format("; expected one of {}", fmt::join(sections, ", "));
}

/// Whether the whole of a scalar is one plain decimal number that T can hold; `too_large` where only the latter
/// fails.
template <class T>
bool read_number(const YAML::Node& node, T& value, bool& too_large) {
  too_large = false;
  if (!node.IsScalar() || node.Tag() == "!") return false;  // "!": quoted, a text
  const std::string& text = node.Scalar();
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  too_large = error == std::errc::result_out_of_range && end == text.data() + text.size();
  return error == std::errc() && end == text.data() + text.size();
}

/// What a configuration says, by key, and everything that is wrong with it.
class Reader {
 public:
  void read_text(const std::string& text, const std::string& name) {
    std::vector<YAML::Node> documents;
    try {
      documents = YAML::LoadAll(text);
    } catch (const YAML::Exception& error) {
      return fault(position(name, error.mark),
                   fmt::format("not valid YAML: {}; indent with spaces and write `key: value`", error.msg));
    }
    if (documents.size() > 1)
      return fault(position(name, documents[1].Mark()),
                   "a second YAML document starts before here; expected one: remove the line `---`");
    const YAML::Node root = documents.empty() ? YAML::Node() : documents.front();
    if (root.IsNull()) return fault(name, "the configuration is empty; expected sections such as `model:`");
    if (!root.IsMap())
      return fault(position(name, root.Mark()),
                   fmt::format("got {}; expected sections such as `model:`", shown(root)));
    std::vector<std::string> seen;
    for (const auto& entry : root) read_section(name, entry.first, entry.second, seen);
  }

  void read_set(const std::string& set) {
    const std::string where = "--set " + set;
    const std::size_t equals = set.find('=');
    if (equals == std::string::npos)
      return fault(where, "no '='; expected section.key=value, e.g. training.steps=100");
    const std::string key = set.substr(0, equals);
    if (std::find(all_keys().begin(), all_keys().end(), key) == all_keys().end())
      return fault(where, fmt::format("unknown key '{}'{}", key, did_you_mean_key(key)));
    try {
      given_[key] = {YAML::Load(set.substr(equals + 1)), where};
    } catch (const YAML::Exception& error) {
      fault(where, fmt::format("not a YAML value: {}", error.msg));
    }
  }

  /// Takes a key's value where there is one; a fault otherwise.
  template <class T>
  void take(std::string_view key, T& member, Range range) {
    const auto found = given_.find(std::string(key));
    if (found == given_.end()) return;
    const Given& given = found->second;
    if (const std::string expected = read_value(given.value, member, range); !expected.empty())
      wrong(given, given.value, key, expected);
  }
  template <class T>
  void take(std::string_view key, std::vector<T>& member, Range range) {
    const auto found = given_.find(std::string(key));
    if (found == given_.end()) return;
    const Given& given = found->second;
    if (!given.value.IsSequence()) {
      T any{};
      const std::string element = read_value(YAML::Node(YAML::NodeType::Null), any, range);
      return wrong(given, given.value, key, fmt::format("a list in [ ], each {}", element));
    }
    member.clear();
    for (std::size_t i = 0; i < given.value.size(); ++i) {
      T element{};
      const std::string expected = read_value(given.value[i], element, range);
      if (!expected.empty()) return wrong(given, given.value[i], fmt::format("{}[{}]", key, i), expected);
      member.push_back(element);
    }
  }

  /// Where a key got its value.
  std::string where(const std::string& key) const {
    const auto found = given_.find(key);
    return found == given_.end() ? "default of " + key : found->second.where;
  }
  void fault(const std::string& place, const std::string& what) { faults_.push_back(place + ": " + what); }
  /// Whether the values of these keys are right, each for itself.
  bool sound(std::initializer_list<const char*> keys) const {
    return std::none_of(keys.begin(), keys.end(), [&](const char* key) { return wrong_keys_.count(key) > 0; });
  }

  void throw_faults() const {
    if (faults_.empty()) return;
    std::string text;
    for (const std::string& line : faults_) text += (text.empty() ? "" : "\n") + line;
    throw ConfigError("{}", text);
  }

 private:
  void read_section(const std::string& name, const YAML::Node& key, const YAML::Node& section,
                    std::vector<std::string>& seen) {
    const std::string at = position(name, key.Mark());
    const std::string word = key.IsScalar() ? key.Scalar() : "";
    const std::vector<std::string> sections = all_sections();
    if (std::find(sections.begin(), sections.end(), word) == sections.end())
      return fault(at, fmt::format("unknown section {}{}", shown(key), unknown_section_remedy(word, sections)));
    if (std::find(seen.begin(), seen.end(), word) != seen.end())
      return fault(at, fmt::format("section '{}' stands here a second time; merge the two", word));
    seen.push_back(word);
    if (section.IsNull()) return;
    if (!section.IsMap())
      return fault(position(name, section.Mark()),
                   fmt::format("section '{}' is {}; expected `key: value` lines", word, shown(section)));
    for (const auto& entry : section) read_key(name, word, entry.first, entry.second);
  }

  void read_key(const std::string& name, const std::string& section, const YAML::Node& key,
                const YAML::Node& value) {
    const std::string at = position(name, key.Mark());
    const std::string full = section + "." + (key.IsScalar() ? key.Scalar() : "");
    if (std::find(all_keys().begin(), all_keys().end(), full) == all_keys().end())
      return fault(at,
                   fmt::format("unknown key {} in section '{}'{}", shown(key), section, did_you_mean_key(full)));
    if (const auto before = given_.find(full); before != given_.end())
      return fault(at, fmt::format("{} was already set at {}; remove one", full, before->second.where));
    given_[full] = {value, position(name, value.IsNull() ? key.Mark() : value.Mark())};
  }

  /// `shown_node` is what is wrong in the value of a key, or a part of it.
  void wrong(const Given& given, const YAML::Node& shown_node, std::string_view key, const std::string& expected) {
    wrong_keys_.emplace(key.substr(0, key.find('[')));
    fault(given.where, fmt::format("{} is {}; expected {}", key, shown(shown_node), expected));
  }

  // read_value(node, value, range): puts a node's value into `value`, or returns what was expected instead.

  static std::string read_value(const YAML::Node& node, bool& value, Range) {
    const std::string word = node.IsScalar() && node.Tag() != "!" ? node.Scalar() : "";
    if (word != "true" && word != "false") return "true or false";
    value = word == "true";
    return "";
  }

  static std::string read_value(const YAML::Node& node, std::string& value, Range) {
    if (!node.IsScalar()) return "a text";
    value = node.Scalar();
    return "";
  }

  template <class Enum>
    requires std::is_enum_v<Enum>
  static std::string read_value(const YAML::Node& node, Enum& value, Range) {
    constexpr auto names = names_of(Enum{});
    std::string expected = "one of";
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (node.IsScalar() && node.Scalar() == names[i]) {
        value = static_cast<Enum>(i);
        return "";
      }
      expected += fmt::format("{} {}", i == 0 ? "" : ",", names[i]);
    }
    const std::string word = node.IsScalar() ? node.Scalar() : "";
    return expected + did_you_mean(word, std::vector<std::string>(names.begin(), names.end()));
  }

  template <class Number>
    requires std::is_arithmetic_v<Number>
  static std::string read_value(const YAML::Node& node, Number& value, Range range) {
    const std::string expected = (std::is_integral_v<Number> ? "a whole number" : "a number") + range_text(range);
    Number read{};
    bool too_large = false;
    if (!read_number(node, read, too_large))
      return expected + (too_large ? fmt::format(" and at most {}", std::numeric_limits<Number>::max()) : "");
    const double number = static_cast<double>(read);
    const bool low = range.above ? number > range.low : number >= range.low;
    const bool high = range.below ? number < range.high : number <= range.high;
    if (!std::isfinite(number) || !low || !high) return expected;
    value = read;
    return "";
  }

  static std::string range_text(Range range) {
    const bool low = std::isfinite(range.low), high = std::isfinite(range.high);
    if (low && high)
      return fmt::format(" {} {} {} {}", range.above ? "above" : "from", range.low, range.below ? "to below" : "to",
                         range.high);
    if (low) return fmt::format(" {} {}", range.above ? "above" : "of at least", range.low);
    return "";
  }

  std::map<std::string, Given> given_;
  std::set<std::string> wrong_keys_;
  std::vector<std::string> faults_;
};

/// Values that are right alone and wrong together.
void check_contradictions(const RunConfig& config, Reader& reader) {
  const ModelConfig& m = config.model;
  const TrainingConfig& t = config.training;
  const auto contradiction = [&](std::initializer_list<const char*> keys, bool wrong, const std::string& what) {
    if (wrong && reader.sound(keys)) reader.fault(reader.where(*keys.begin()), what);
  };
  contradiction(
      {"model.heads", "model.channels"}, m.channels % m.heads != 0,
      fmt::format("model.heads {} does not divide model.channels {}; choose a divisor", m.heads, m.channels));
  contradiction(
      {"model.channels", "model.positions"}, m.positions == Positions::sinusoidal && m.channels % 2 != 0,
      fmt::format("model.channels {} is odd; sinusoidal positions pair sine and cosine: choose an even number",
                  m.channels));
  contradiction({"training.micro_batch", "training.batch"}, t.micro_batch > 0 && t.batch % t.micro_batch != 0,
                fmt::format("training.micro_batch {} does not divide training.batch {}; choose a divisor",
                            t.micro_batch, t.batch));
  contradiction({"training.warmup_steps", "training.steps"}, t.warmup_steps > t.steps,
                fmt::format("training.warmup_steps {} is more than training.steps {}; shorten the warm-up",
                            t.warmup_steps, t.steps));
  contradiction({"training.final_learning_rate", "training.learning_rate"}, t.final_learning_rate > t.learning_rate,
                fmt::format("training.final_learning_rate {} is above training.learning_rate {}; lower it",
                            t.final_learning_rate, t.learning_rate));
  contradiction({"sampling.prompt"}, config.sampling.prompt.empty(),
                "sampling.prompt is empty; expected at least one character");
  const AttentionConfig& a = config.attention;
  const auto largest = [](const auto& list) {
    return list.empty() ? 0 : *std::max_element(list.begin(), list.end());
  };
  const auto repeated = [](auto list) {
    std::sort(list.begin(), list.end());
    return std::adjacent_find(list.begin(), list.end()) != list.end();
  };
  contradiction({"attention.layers", "model.layers"}, largest(a.layers) >= m.layers,
                fmt::format("attention.layers names layer {} but model.layers is {}; expected 0 to {}",
                            largest(a.layers), m.layers, m.layers - 1));
  contradiction({"attention.heads", "model.heads"}, largest(a.heads) >= m.heads,
                fmt::format("attention.heads names head {} but model.heads is {}; expected 0 to {}",
                            largest(a.heads), m.heads, m.heads - 1));
  contradiction({"attention.layers"}, repeated(a.layers),
                "attention.layers names a layer twice; expected each once");
  contradiction({"attention.heads"}, repeated(a.heads), "attention.heads names a head twice; expected each once");
  contradiction({"attention.steps", "training.steps"}, largest(a.steps) > t.steps,
                fmt::format("attention.steps has {} but training.steps is {}; expected steps of the run",
                            largest(a.steps), t.steps));
  contradiction({"attention.window_tokens", "model.context"}, a.window_tokens > m.context,
                fmt::format("attention.window_tokens {} is more than model.context {}; shorten the windows",
                            a.window_tokens, m.context));
  contradiction({"attention.texts"}, std::count(a.texts.begin(), a.texts.end(), "") > 0,
                "attention.texts has an empty text; expected at least one character");
  // The widest tensors: queries, keys and values or the hidden layer of a micro-batch; the token table.
  const double channels = m.channels, width = std::max(3 * channels, double(m.feed_forward));
  const double activations = double(config.micro_batch()) * m.context * width;
  const double table = (double(m.vocabulary) + m.vocabulary_multiple) * channels;
  const double elements = std::max({activations, table, channels * width});
  contradiction({"training.micro_batch", "training.batch", "model.context", "model.channels", "model.feed_forward",
                 "model.vocabulary", "model.vocabulary_multiple"},
                elements > std::numeric_limits<int>::max(),
                fmt::format("one tensor of this model would have {:.3g} elements; expected at most {}: lower "
                            "training.micro_batch, model.context or the model's width",
                            elements, std::numeric_limits<int>::max()));
}

RunConfig finish(Reader& reader, const std::vector<std::string>& sets) {
  for (const std::string& set : sets) reader.read_set(set);
  RunConfig config;
  visit_fields(config, [&](std::string_view key, auto& member, Range range) { reader.take(key, member, range); });
  check_contradictions(config, reader);
  reader.throw_faults();
  return config;
}

std::string yaml_value(bool value) {
  return value ? "true" : "false";
}
std::string yaml_value(const std::string& value) {
  return quoted(value);
}
std::string yaml_value(double value) {
  return fmt::format("{}", value);
}
template <class T>
  requires(std::is_enum_v<T> || std::is_arithmetic_v<T>)
std::string yaml_value(T value) {
  if constexpr (std::is_enum_v<T>)
    return std::string(names_of(T{})[static_cast<std::size_t>(value)]);
  else
    return fmt::format("{}", value);
}

template <class T>
std::string yaml_value(const std::vector<T>& values) {
  std::string list;
  for (const T& value : values) list += (list.empty() ? "" : ", ") + yaml_value(value);
  return "[" + list + "]";
}

/// Whether a run may go on from a checkpoint with another value of this key.
bool restart_may_change(const std::string& key) {
  if (key.starts_with("model.")) return false;
  return key != "training.seed" && key != "training.batch" && key != "training.micro_batch";
}

}  // namespace

RunConfig load_run_config(const std::filesystem::path& file, const std::vector<std::string>& sets) {
  constexpr const char* expected = "expected a YAML file such as input/quickstart.yaml";
  if (std::error_code ignored; !std::filesystem::exists(file, ignored))
    throw ConfigError("{}: there is no such configuration; {}", file.string(), expected);
  else if (std::filesystem::is_directory(file, ignored))
    throw ConfigError("{}: is a folder; {}", file.string(), expected);
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw ConfigError("{}: cannot be opened: {}; {}", file.string(), std::strerror(errno), expected);
  std::ostringstream text;
  if (stream.peek() != std::ifstream::traits_type::eof()) text << stream.rdbuf();
  if (stream.bad() || !text) throw ConfigError("{}: cannot be read; {}", file.string(), expected);
  return parse_run_config(text.str(), file.string(), sets);
}

RunConfig parse_run_config(const std::string& text, const std::string& name, const std::vector<std::string>& sets) {
  Reader reader;
  reader.read_text(text, name);
  return finish(reader, sets);
}

std::string to_yaml(const RunConfig& config) {
  std::string text, open_section;
  visit_fields(config, [&](std::string_view key, const auto& member, Range) {
    const std::string section(key.substr(0, key.find('.')));
    if (section != open_section) text += section + ":\n";
    open_section = section;
    text += fmt::format("  {}: {}\n", key.substr(section.size() + 1), yaml_value(member));
  });
  return text;
}

std::vector<ConfigDifference> config_differences(const RunConfig& before, const RunConfig& now) {
  std::vector<std::string> values;
  visit_fields(before, [&](std::string_view, const auto& member, Range) { values.push_back(yaml_value(member)); });
  std::vector<ConfigDifference> differences;
  std::size_t i = 0;
  visit_fields(now, [&](std::string_view key, const auto& member, Range) {
    const std::string& old = values[i++];
    if (const std::string value = yaml_value(member); value != old)
      differences.push_back({std::string(key), old, value, restart_may_change(std::string(key))});
  });
  return differences;
}

std::string quoted(const std::string& text) {
  // Of three bytes: what readers refuse or take for a line end or a byte-order mark (YAML 1.2, 5.1, 5.2 and 5.4).
  constexpr std::pair<std::string_view, std::string_view> escapes[] = {{"\xe2\x80\xa8", "\\u2028"},
                                                                       {"\xe2\x80\xa9", "\\u2029"},
                                                                       {"\xef\xbb\xbf", "\\ufeff"},
                                                                       {"\xef\xbf\xbe", "\\ufffe"},
                                                                       {"\xef\xbf\xbf", "\\uffff"}};
  std::string result = "\"";
  for (std::string_view rest = text; !rest.empty();) {
    const auto byte = static_cast<unsigned char>(rest[0]);
    const auto next = static_cast<unsigned char>(rest.size() > 1 ? rest[1] : 0);
    const auto* escape =
        std::find_if(std::begin(escapes), std::end(escapes), [&](auto& e) { return rest.starts_with(e.first); });
    std::size_t taken = 1;
    if (escape != std::end(escapes)) {
      result += escape->second;
      taken = 3;
    } else if (byte == 0xc2 && next >= 0x80 && next < 0xa0) {  // the controls U+0080 to U+009F
      result += fmt::format("\\u00{:02x}", next);
      taken = 2;
    } else if (byte == '"' || byte == '\\') {
      result += fmt::format("\\{}", rest[0]);
    } else if (byte == '\n') {
      result += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      result += fmt::format("\\x{:02x}", byte);
    } else {
      result += rest[0];
    }
    rest.remove_prefix(taken);
  }
  return result + "\"";
}

}  // namespace dekoder
