// SPDX-License-Identifier: Apache-2.0
#include "train/progress.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "base/log.hpp"

namespace dekoder {

namespace {

std::string time_text(double seconds) {
  const long whole = std::lround(seconds);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

}  // namespace

Progress::Progress(long first_step, long steps, double tokens_per_step, bool terminal)
    : first_step_(first_step),
      steps_(steps),
      last_step_(first_step),
      tokens_per_step_(tokens_per_step),
      terminal_(terminal),
      start_(Clock::now()),
      shown_(start_) {}

double Progress::tokens_per_second() const {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_ - paused_).count();
  return seconds > 0 ? double(last_step_ - first_step_) * tokens_per_step_ / seconds : 0;
}

void Progress::pause() {
  paused_at_ = Clock::now();
}
void Progress::resume() {
  paused_ += Clock::now() - paused_at_;
}

std::string Progress::line(long step, double loss) const {
  const double rate = tokens_per_second();
  const std::string validation =
      std::isnan(validation_loss_) ? "" : fmt::format("  validation {:.4f}", validation_loss_);
  const std::string to_go = rate > 0 ? time_text(double(steps_ - step) * tokens_per_step_ / rate) : "?";
  return fmt::format("step {}/{}  loss {:.4f}{}  {:.0f} tokens/s  {} to go", step, steps_, loss, validation, rate,
                     to_go);
}

void Progress::step_done(long step, double loss) {
  last_step_ = step;
  const double since_shown = std::chrono::duration<double>(Clock::now() - shown_).count();
  if (step != steps_ && since_shown < (terminal_ ? 0.2 : 10.0)) return;
  shown_ = Clock::now();
  if (!terminal_ || step == steps_) return log_line(line(step, loss));
  const std::string text = "\r\x1b[K" + line(step, loss);
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

}  // namespace dekoder
