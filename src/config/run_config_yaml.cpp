// SPDX-License-Identifier: Apache-2.0
#include "config/run_config_yaml.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/error.hpp"
#include "config/config_fields.hpp"
#include "config/config_reader.hpp"
#include "config/contradictions.hpp"
#include "config/setting_value.hpp"

namespace dekoder {

namespace {

/// Whether a run may go on from a checkpoint with another value of this key.
bool restart_may_change(const std::string& key) {
  if (key.starts_with("model.")) return false;
  return key != "data.weights" && key != "training.seed" && !key.starts_with("training.batch") &&
         key != "training.micro_batch" && !is_of_optimizer_state(key);
}

void take_all(ConfigReader& reader, RunConfig& config, bool as_float) {
  visit_fields(config, [&](std::string_view key, auto& member, Range range) {
    range.as_float = range.as_float && as_float;
    reader.take(key, member, range);
  });
  // Not among follow_with_defaults: records that are older than the key follow too.
  if (!reader.given("training.residual") && config.model.norm == NormPlacement::post)
    config.model.residual = Residual::stored;
}

}  // namespace

std::string read_config_text(const std::filesystem::path& file) {
  constexpr const char* expected = "expected a YAML file such as input/quickstart.yaml";
  constexpr std::size_t most_bytes = std::size_t{16} << 20;
  if (std::error_code ignored; !std::filesystem::exists(file, ignored))
    throw ConfigError("{}: there is no such configuration; {}", file.string(), expected);
  else if (std::filesystem::is_directory(file, ignored))
    throw ConfigError("{}: is a folder; {}", file.string(), expected);
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw ConfigError("{}: cannot be opened: {}; {}", file.string(), std::strerror(errno), expected);
  std::string text;
  std::array<char, 65536> piece;
  while (text.size() <= most_bytes && (stream.read(piece.data(), piece.size()) || stream.gcount() > 0))
    text.append(piece.data(), std::size_t(stream.gcount()));
  if (stream.bad()) throw ConfigError("{}: cannot be read; {}", file.string(), expected);
  if (text.size() > most_bytes) throw ConfigError("{}: has more than 16 MiB; {}", file.string(), expected);
  return text;
}

RunConfig parse_run_config(const std::string& text, const std::string& name, const std::vector<std::string>& sets,
                           const ConfigFormat& format) {
  ConfigReader reader(format);
  reader.read_text(text, name);
  for (const std::string& set : sets) reader.read_set(set);
  RunConfig config;
  take_all(reader, config, true);
  follow_with_defaults(config, reader);
  check_sizes(config, reader);
  check_optimisation(config, reader);
  reader.throw_faults();
  return config;
}

RunConfig recorded_run_config(const std::string& text, const std::string& name) {
  ConfigReader reader(config_format());
  reader.read_text(text, name);
  RunConfig config;
  take_all(reader, config, false);
  check_sizes(config, reader);
  reader.throw_faults();
  return config;
}

std::string to_yaml(const RunConfig& config) {
  std::string text = fmt::format("version: {}\n", config_format().version), open_section;
  visit_fields(config, [&](std::string_view key, const auto& member, const Range&) {
    const std::string section(key.substr(0, key.find('.')));
    if (section != open_section) text += section + ":\n";
    open_section = section;
    text += fmt::format("  {}: {}\n", key.substr(section.size() + 1), yaml_value(member));
  });
  return text;
}

bool is_of_optimizer_state(std::string_view key) {
  return key == "training.optimizer" || key == "training.average";
}

std::vector<ConfigDifference> config_differences(RunConfig before, RunConfig now) {
  // 0 and the whole batch are the same micro-batch.
  for (RunConfig* config : {&before, &now}) config->training.micro_batch = config->micro_batch();
  std::vector<std::string> values;
  visit_fields(before,
               [&](std::string_view, const auto& member, const Range&) { values.push_back(yaml_value(member)); });
  std::vector<ConfigDifference> differences;
  std::size_t i = 0;
  visit_fields(now, [&](std::string_view key, const auto& member, const Range&) {
    const std::string& old = values[i++];
    if (const std::string value = yaml_value(member); value != old)
      differences.push_back({std::string(key), old, value, restart_may_change(std::string(key))});
  });
  return differences;
}

}  // namespace dekoder
