// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "config/command.hpp"

namespace dekoder {

struct CommandLine {
  Command command;
  std::string backend = "auto";
  std::string precision = "auto";  ///< float or bf16; auto: that of the configuration or run
};

/// Reads the command line, and the text of the configuration that it names. Nothing where --help or --version was
/// asked for and printed. Throws ConfigError for anything that is not understood, with a suggestion.
std::optional<CommandLine> read_command_line(int argc, char** argv);

}  // namespace dekoder
