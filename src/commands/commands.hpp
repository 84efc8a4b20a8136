// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/error.hpp"
#include "config/command.hpp"

namespace dekoder {

/// Runs one subcommand. Errors of the user are thrown as UserError.
ExitCode run_command(const Command& command);

}  // namespace dekoder
