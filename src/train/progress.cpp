// SPDX-License-Identifier: Apache-2.0
#include "train/progress.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "base/decimal.hpp"
#include "base/elapsed.hpp"
#include "base/log.hpp"

namespace dekoder {

Progress::Progress(long first_step, long steps, double tokens_per_step, bool terminal)
    : steps_(steps),
      shown_step_(first_step),
      tokens_per_step_(tokens_per_step),
      terminal_(terminal),
      shown_at_(Clock::now()) {}

std::string Progress::line(long step, double loss) const {
  const double steps_per_second = seconds_ > 0 ? double(step - shown_step_) / seconds_ : 0;
  const std::string validation =
      std::isnan(validation_loss_) ? "" : fmt::format("  validation {:.4f}", validation_loss_);
  const std::string to_go = steps_per_second > 0 ? time_text(double(steps_ - step) / steps_per_second) : "?";
  return fmt::format("step {}/{}  loss {:.4f}{}  {:.0f} tokens/s  {} to go", step, steps_, loss, validation,
                     steps_per_second * tokens_per_step_, to_go);
}

void Progress::step_done(long step, double loss, double seconds) {
  seconds_ += seconds;
  const double since_shown = seconds_since(shown_at_);
  if (step != steps_ && since_shown < (terminal_ ? 0.2 : 10.0)) return;
  const std::string text = line(step, loss);
  shown_at_ = Clock::now();
  shown_step_ = step;
  seconds_ = 0;
  if (!terminal_ || step == steps_) return log_line(text);
  const std::string live = "\r\x1b[K" + text;
  std::fwrite(live.data(), 1, live.size(), stderr);
  std::fflush(stderr);
}

}  // namespace dekoder
