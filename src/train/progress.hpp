// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cmath>
#include <limits>
#include <string>

namespace dekoder {

/// What a run shows while it goes on: on a terminal one live line, rewritten a few times a second; in a file a
/// plain line every ten seconds and at the last step.
class Progress {
 public:
  /// `terminal`: whether stderr is one. tokens_per_step is of all ranks.
  Progress(long first_step, long steps, double tokens_per_step, bool terminal);

  /// After optimizer step `step` (counted from 1) with its loss; shows the line where it is due.
  void step_done(long step, double loss);
  void set_validation_loss(double loss) { validation_loss_ = loss; }
  /// Mean rate since the start of this process, without the time spent in pauses.
  double tokens_per_second() const;
  /// Time that is not training (evaluation, samples, checkpoints) lies between these two.
  void pause();
  void resume();

  /// The line for `step`: step, loss, validation loss, tokens/s, time to go.
  std::string line(long step, double loss) const;

 private:
  using Clock = std::chrono::steady_clock;

  long first_step_, steps_, last_step_;
  double tokens_per_step_;
  bool terminal_;
  double validation_loss_ = std::numeric_limits<double>::quiet_NaN();
  Clock::time_point start_, paused_at_, shown_;
  Clock::duration paused_{};
};

}  // namespace dekoder
