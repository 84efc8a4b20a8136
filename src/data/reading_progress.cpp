// SPDX-License-Identifier: Apache-2.0
#include "data/reading_progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/decimal.hpp"
#include "base/elapsed.hpp"
#include "base/log.hpp"

namespace dekoder {

ReadingProgress::ReadingProgress(const char* name, std::uint64_t total)
    : name_(name), total_(total), terminal_(::isatty(STDERR_FILENO) == 1) {}

ReadingProgress::~ReadingProgress() {
  if (live_) std::fputs("\r\x1b[K", stderr);
}

void ReadingProgress::show(std::uint64_t bytes) {
  if (*name_ == '\0' || seconds_since(shown_) < (terminal_ ? 0.2 : 10.0)) return;
  shown_ = std::chrono::steady_clock::now();
  const double seconds = seconds_since(begin_), rate = static_cast<double>(bytes) / seconds;
  std::string text = fmt::format("{}: {}", name_, bytes_text(bytes));
  if (total_ > 0) text += fmt::format(" of {}", bytes_text(std::max(bytes, total_)));
  text += fmt::format("  {}/s", bytes_text(static_cast<std::uint64_t>(rate)));
  if (total_ > 0 && rate > 0)
    text += fmt::format("  {} to go", time_text(static_cast<double>(total_ - std::min(bytes, total_)) / rate));
  if (!terminal_) return log_line(text);
  const std::string live = "\r\x1b[K" + text;
  std::fwrite(live.data(), 1, live.size(), stderr);
  std::fflush(stderr);
  live_ = true;
}

}  // namespace dekoder
