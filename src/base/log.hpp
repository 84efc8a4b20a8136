// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace dekoder {

/// The rank of this process: others than 0 log nothing but warnings and errors; call once after MPI is up.
void set_log_rank(int rank);

/// One line on stderr, `dekoder: text`; clears a live progress line first. On rank 0 alone.
void log_line(std::string_view text);
/// The same on every rank, others than 0 with their number.
void log_on_any_rank(std::string_view text);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_on_any_rank("warning: " + fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace dekoder
