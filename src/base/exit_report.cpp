// SPDX-License-Identifier: Apache-2.0
#include "base/exit_report.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <string_view>

#include "base/log.hpp"

namespace dekoder {

namespace {

ExitCode out_of_memory() {
  log_line(
      "error: out of memory; lower training.micro_batch (or model.context), or give the job more; `dekoder "
      "describe` "
      "shows the terms");
  return ExitCode::usage;
}

ExitCode internal(const char* what) {
  log_info("internal error (please report it): {}", what);
  return ExitCode::internal;
}

}  // namespace

ExitCode report_current_exception() {
  std::fflush(stdout);
  try {
    throw;
  } catch (const UserError& error) {
    log_info("error: {}", error.what());
    return error.code();
  } catch (const std::filesystem::filesystem_error& error) {
    log_info("error: {}: {}", error.path1().string(), error.code().message());
    return ExitCode::no_data;
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::exception& error) {
    // Kokkos reports a failed allocation as a runtime_error.
    return std::strstr(error.what(), "allocate") != nullptr ? out_of_memory() : internal(error.what());
  } catch (...) {
    return internal("an exception without a text");
  }
}

void end_with_current_exception() noexcept {
  ExitCode code = ExitCode::internal;
  try {
    code = std::current_exception() != nullptr ? report_current_exception() : internal("std::terminate was called");
  } catch (...) {  // not even memory for the message
    constexpr std::string_view text = "dekoder: error: out of memory\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, text.data(), text.size());
    code = ExitCode::usage;
  }
  _exit(static_cast<int>(code));
}

}  // namespace dekoder
