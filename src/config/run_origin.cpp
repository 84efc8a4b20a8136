// SPDX-License-Identifier: Apache-2.0
#include "config/run_origin.hpp"

#include <yaml-cpp/yaml.h>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "config/setting_value.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view mark = "# from ";

bool is_regular(const fs::path& file) {
  std::error_code ignored;
  return fs::is_regular_file(file, ignored);
}

/// "" where the text has no such line.
fs::path recorded_origin(const std::string& config_yaml) {
  if (!config_yaml.starts_with(mark)) return {};
  try {
    const std::string line = config_yaml.substr(0, config_yaml.find('\n'));
    const YAML::Node path = YAML::Load(line.substr(mark.size()));
    if (path.IsScalar() && path.Tag() == "!") return path.Scalar();  // "!": in quotes
  } catch (const YAML::Exception&) {
  }
  return {};  // somebody's own comment
}

}  // namespace

fs::path default_run_directory(const fs::path& config_file) {
  if (!is_regular(config_file))
    throw ConfigError("{}: is no regular file, whose name would be that of the run directory; give one with --run",
                      config_file.string());
  const fs::path name = config_file.stem();
  if (name == "." || name == "..")
    throw ConfigError("{}: its name without the ending, '{}', is none for a folder of its own; give one with --run",
                      config_file.string(), name.string());
  return fs::path("runs") / name;
}

std::string origin_line(const fs::path& config_file, const fs::path& run_directory) {
  if (!is_regular(config_file)) return "";
  const std::string path =
      fs::weakly_canonical(config_file).lexically_relative(fs::weakly_canonical(run_directory)).string();
  if (find_utf8_fault(path)) return "";
  return fmt::format("{}{}\n", mark, quoted(path));
}

void check_origin(const fs::path& config_file, const fs::path& run_directory, const std::string& config_yaml) {
  const fs::path recorded = recorded_origin(config_yaml);
  if (recorded.empty()) return;
  const fs::path of_run = fs::weakly_canonical(fs::weakly_canonical(run_directory) / recorded);
  const fs::path now = fs::weakly_canonical(config_file);
  std::error_code ignored;
  if (of_run == now || fs::equivalent(of_run, now, ignored)) return;
  throw ConfigError(
      "{}: is the run of {}, not of {}, which only has the same name; choose another run directory with --run (or "
      "--run {} to go on with this one)",
      run_directory.string(), of_run.string(), now.string(), run_directory.string());
}

}  // namespace dekoder
