// SPDX-License-Identifier: Apache-2.0
#include "base/exit_report.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <new>
#include <string>
#include <string_view>

#include "base/log.hpp"

namespace dekoder {

namespace {

Failure out_of_memory() {
  return {ExitCode::usage,
          "error: out of memory; lower training.micro_batch, set training.recompute to block, or give the job "
          "more; `dekoder "
          "describe` shows the terms"};
}

Failure internal(const char* what) {
  return {ExitCode::internal, fmt::format("internal error (please report it): {}", what)};
}

}  // namespace

Failure failure_of(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const ElsewhereError& error) {
    return {error.code(), ""};
  } catch (const UserError& error) {
    return {error.code(), fmt::format("error: {}", error.what())};
  } catch (const std::filesystem::filesystem_error& error) {
    return {ExitCode::no_data, fmt::format("error: {}: {}", error.path1().string(), error.code().message())};
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::exception& error) {
    // Kokkos reports a failed allocation as a runtime_error.
    return std::strstr(error.what(), "allocate") != nullptr ? out_of_memory() : internal(error.what());
  } catch (...) {
    return internal("an exception without a text");
  }
}

ExitCode report_current_exception() {
  std::fflush(stdout);
  const Failure failure = failure_of(std::current_exception());
  if (!failure.message.empty()) log_on_any_rank(failure.message);
  return failure.code;
}

void end_with_current_exception() noexcept {
  ExitCode code = ExitCode::internal;
  try {
    if (std::current_exception() != nullptr) {
      code = report_current_exception();
    } else {
      log_on_any_rank(internal("std::terminate was called").message);
    }
  } catch (...) {  // not even memory for the message
    constexpr std::string_view text = "dekoder: error: out of memory\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, text.data(), text.size());
    code = ExitCode::usage;
  }
  _exit(static_cast<int>(code));
}

}  // namespace dekoder
