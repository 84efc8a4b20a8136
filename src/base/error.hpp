// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace dekoder {

/// What a process tells its caller; everything else is a crash.
enum class ExitCode : int {
  finished = 0,
  internal = 1,        ///< a fault of the program itself (a ShapeError), which says so
  different = 1,       ///< `checkpoint diff`: the two are not equal, as diff and cmp tell it
  usage = 2,           ///< command line, configuration, environment; memory or threads that the system refuses
  no_data = 3,         ///< no usable token file, text or checkpoint
  diverged = 4,        ///< NaN or Inf in loss or gradient
  wants_to_go_on = 85  ///< saved after a signal; start again to go on
};

/// Base of every error a user can mend. The message says what, where, got, expected and remedy.
class UserError : public std::runtime_error {
 public:
  UserError(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// Wrong command line, configuration or environment (exit 2).
class ConfigError : public UserError {
 public:
  template <class... Args>
  explicit ConfigError(fmt::format_string<Args...> format, Args&&... args)
      : UserError(ExitCode::usage, fmt::format(format, std::forward<Args>(args)...)) {}
};

/// Missing, foreign, truncated or damaged text, token file or checkpoint (exit 3).
class DataError : public UserError {
 public:
  template <class... Args>
  explicit DataError(fmt::format_string<Args...> format, Args&&... args)
      : UserError(ExitCode::no_data, fmt::format(format, std::forward<Args>(args)...)) {}
};

/// A file cannot be read now: no permission, a failing disk or file server, too many open files, no memory. What it
/// holds may be as good as ever, so nothing is put in its place, renamed or removed.
class ReadError : public DataError {
 public:
  using DataError::DataError;
};

/// Something could not be saved: no space, no permission, a failing disk. The files from before are untouched and
/// training can go on; the message says why and what to do.
class SaveError : public DataError {
 public:
  using DataError::DataError;
};

/// NaN or Inf where a number was due (exit 4).
class DivergedError : public UserError {
 public:
  template <class... Args>
  explicit DivergedError(fmt::format_string<Args...> format, Args&&... args)
      : UserError(ExitCode::diverged, fmt::format(format, std::forward<Args>(args)...)) {}
};

/// Another rank has failed, and has said why: this one ends with the same exit code and says nothing.
class ElsewhereError : public UserError {
 public:
  explicit ElsewhereError(ExitCode code) : UserError(code, "another rank has failed") {}
};

/// A tensor of the wrong shape reached a function: a fault of the program, never of its user.
class ShapeError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

}  // namespace dekoder
