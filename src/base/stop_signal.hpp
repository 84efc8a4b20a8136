// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace dekoder {

/// Names who knows of signals that ask to stop: the launcher, which handles them. `asked` returns the number of the
/// signal that came first, or 0.
void watch_stop_signals(int (*asked)());

/// The signal that asked to save and stop, or 0.
int stop_requested();

/// "SIGUSR1" of those that ask to stop, "signal 34" of others.
std::string signal_name(int number);

}  // namespace dekoder
