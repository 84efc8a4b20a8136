// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "config/run_config.hpp"

namespace dekoder {

/// Reads a configuration, strictly: every unknown or repeated key, wrong type, value out of range and contradiction
/// is reported at once, one line each with file:line:column, what was got, what was expected and what to do. `sets`
/// are "section.key=value" and win over the file. Throws ConfigError.
RunConfig load_run_config(const std::filesystem::path& file, const std::vector<std::string>& sets);

/// The same from text; `name` stands for the file in messages.
RunConfig parse_run_config(const std::string& text, const std::string& name, const std::vector<std::string>& sets);

/// Every key with its value: reading it back gives the same configuration.
std::string to_yaml(const RunConfig& config);

/// One key in which two configurations differ.
struct ConfigDifference {
  std::string key, before, now;
  bool may_change = false;  ///< a restart may go on with the new value
};
std::vector<ConfigDifference> config_differences(const RunConfig& before, const RunConfig& now);

/// A text as a double-quoted YAML scalar.
std::string quoted(const std::string& text);

}  // namespace dekoder
