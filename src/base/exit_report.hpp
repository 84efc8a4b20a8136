// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <string>

#include "base/error.hpp"

namespace dekoder {

/// The one place where exceptions become messages and exit codes. To be called while one is handled: logs it in one
/// message, after all that was printed, and returns its exit code.
ExitCode report_current_exception();

/// What is to be said of an exception, and its exit code. Without a message: another rank has said it.
struct Failure {
  ExitCode code;
  std::string message;
};
Failure failure_of(const std::exception_ptr& exception);

/// Logs the exception that is handled, or that nobody caught, and ends the process at once with its exit code:
/// where no caller is left to tell. Files stand as after a kill.
[[noreturn]] void end_with_current_exception() noexcept;

}  // namespace dekoder
