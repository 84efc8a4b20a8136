// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <csignal>

namespace dekoder {

/// From now on SIGTERM, SIGINT and SIGUSR1 only set a flag: for commands that look at it. Before MPI_Init. A second
/// SIGINT ends the process at once (exit 130): the last checkpoint stands.
void install_stop_signals();

/// The flag: 0, or the number of the signal that came first.
const volatile std::sig_atomic_t* stop_flag();

/// Makes stop_requested() look at the flag of another copy of this file: the launcher's, in a plug-in.
void watch_stop_flag(const volatile std::sig_atomic_t* flag);

/// The signal that asked to save and stop, or 0.
int stop_requested();

}  // namespace dekoder
