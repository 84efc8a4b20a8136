// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace dekoder {

/// Names who knows of signals that ask to stop: the launcher, which handles them. `asked` returns the number of the
/// signal that came first, or 0.
void watch_stop_signals(int (*asked)());

/// The signal that asked to save and stop, or 0.
int stop_requested();

}  // namespace dekoder
