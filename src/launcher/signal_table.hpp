// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace dekoder {

/// Gives every catchable signal the action that the table in signal_table.cpp (and README.md) has for `command`,
/// also those that a library took for itself, and lets those through that came before. "" is none of the commands:
/// signals do what they do to other programs. A second SIGINT, 0.1 s after the first or later, ends the process
/// at once (exit 130): the last checkpoint stands.
void handle_signals(const std::string& command);

/// The signal that came first and asks to save and stop, or 0.
int stop_signal();

}  // namespace dekoder
