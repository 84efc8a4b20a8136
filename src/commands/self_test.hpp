// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/error.hpp"
#include "config/command.hpp"

namespace dekoder {

/// `dekoder selftest`, on all ranks: whether the nodes of a job train right. Prints a line for each check as it
/// ends, and what to tell the administrators after one that failed. usage: one did; finished: none;
/// wants_to_go_on: none up to a signal.
ExitCode run_self_test(const Command& command, void (*print)(const std::string&));

}  // namespace dekoder
