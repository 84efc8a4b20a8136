// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "config/config_format.hpp"
#include "config/run_config.hpp"

namespace dekoder {

/// The text of a configuration file, read once from its beginning to its end: a pipe will do. Throws ConfigError.
std::string read_config_text(const std::filesystem::path& file);

/// Reads a configuration, strictly: every unknown or repeated key, wrong type, value out of range and contradiction
/// is reported at once, one line each with file:line:column, what was got, what was expected and what to do. `sets`
/// are "section.key=value" and win over the file. `name` stands for the file in messages. Throws ConfigError.
RunConfig parse_run_config(const std::string& text, const std::string& name, const std::vector<std::string>& sets,
                           const ConfigFormat& format = config_format());

/// Reads what to_yaml wrote for a run, now or in an earlier version, of which every key's meaning is known and the
/// sense of training with it is not asked. Throws ConfigError.
RunConfig recorded_run_config(const std::string& text, const std::string& name);

/// The version and every key with its value, in ASCII but for texts; YAML 1.1 and 1.2 read the same. Reading it
/// back gives the same configuration.
std::string to_yaml(const RunConfig& config);

/// Whether it says what the optimizer keeps of a run, which is there or not: neither a restart nor the first start
/// after an import can change it.
bool is_of_optimizer_state(std::string_view key);

/// One key in which two configurations differ.
struct ConfigDifference {
  std::string key, before, now;
  bool may_change = false;  ///< a restart may go on with the new value
};
std::vector<ConfigDifference> config_differences(RunConfig before, RunConfig now);

}  // namespace dekoder
