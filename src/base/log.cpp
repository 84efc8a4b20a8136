// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"

#include <unistd.h>

#include <cstdio>

#include "base/utf8.hpp"

namespace dekoder {

namespace {
int log_rank = 0;
}

void set_log_rank(int rank) {
  log_rank = rank;
}

void log_line(std::string_view text) {
  if (log_rank == 0) log_on_any_rank(text);
}

void log_on_any_rank(std::string_view text) {
  static const bool terminal = isatty(STDERR_FILENO) == 1;
  const char* clear_line = terminal ? "\r\x1b[K" : "";
  const std::string rank = log_rank == 0 ? "" : fmt::format("rank {}: ", log_rank);
  const std::string line = fmt::format("{}dekoder: {}{}\n", clear_line, rank, as_printable(text));
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

}  // namespace dekoder
