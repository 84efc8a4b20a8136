// SPDX-License-Identifier: Apache-2.0
#include "train/progress.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "base/decimal.hpp"
#include "base/elapsed.hpp"
#include "base/log.hpp"

namespace dekoder {

Progress::Progress(long first_step, long steps, std::function<double(long)> tokens_before, bool terminal)
    : steps_(steps),
      shown_step_(first_step),
      tokens_before_(std::move(tokens_before)),
      terminal_(terminal),
      shown_at_(Clock::now()) {}

std::string Progress::line(long step, double loss) const {
  const double tokens = tokens_before_(step),
               rate = seconds_ > 0 ? (tokens - tokens_before_(shown_step_)) / seconds_ : 0;
  const std::string validation =
      std::isnan(validation_loss_) ? "" : fmt::format("  validation {:.4f}", validation_loss_);
  const std::string to_go = rate > 0 ? time_text((tokens_before_(steps_) - tokens) / rate) : "?";
  return fmt::format("step {}/{}  loss {:.4f}{}  {:.0f} tokens/s  {} to go", step, steps_, loss, validation, rate,
                     to_go);
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
