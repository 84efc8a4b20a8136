// SPDX-License-Identifier: Apache-2.0
// Which configuration file a run directory belongs to.
#pragma once

#include <filesystem>
#include <string>

namespace dekoder {

/// runs/<name of the configuration file without its extension>: the run directory where none is named. Throws
/// ConfigError where the configuration is no regular file, as its name, such as /dev/fd/63, says nothing, and where
/// that name is `.` or `..`, as of ...yaml.
std::filesystem::path default_run_directory(const std::filesystem::path& config_file);

/// The first line of a run's config.yaml, a comment with the path from the run directory to the configuration file,
/// so that both can move together: `# from "../../input/x.yaml"` and a line end. "" where the configuration is no
/// regular file or the path is no UTF-8.
std::string origin_line(const std::filesystem::path& config_file, const std::filesystem::path& run_directory);

/// Throws ConfigError where `config_yaml`, the contents of the run directory's config.yaml, begins with the
/// origin_line of another file. For a run directory that only the configuration's name has chosen.
void check_origin(const std::filesystem::path& config_file, const std::filesystem::path& run_directory,
                  const std::string& config_yaml);

}  // namespace dekoder
