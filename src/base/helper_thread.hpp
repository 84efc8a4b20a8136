// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <thread>

namespace dekoder {

/// A thread that does not compute, such as one that reads ahead: the one place that starts such threads. It may run
/// on all of process_cpus(), as OpenMP may have bound its starter to a core of its own, and gets no signals (they
/// belong to the thread that trains). `name` shows in ps and debuggers, at most 15 characters. What `work` throws
/// ends the process with its message and exit code. Throws ConfigError where the system starts no further thread.
std::thread start_helper_thread(const char* name, std::function<void()> work);

/// What to say where the system starts no further thread: the limits that there are, and what to do.
/// `reason`: of the system, e.g. "Resource temporarily unavailable".
std::string thread_refusal(const std::string& reason);

}  // namespace dekoder
