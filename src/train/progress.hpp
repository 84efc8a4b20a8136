// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <string>

namespace dekoder {

/// What a run shows while it goes on: on a terminal one live line, rewritten a few times a second; in a file a
/// plain line every ten seconds and at the last step.
class Progress {
 public:
  /// `tokens_before`(n): of the first n steps, of all ranks. `terminal`: whether stderr is one.
  Progress(long first_step, long steps, std::function<double(long)> tokens_before, bool terminal);

  /// After optimizer step `step` (counted from 1) with its loss, which took `seconds`; shows the line where it is
  /// due.
  void step_done(long step, double loss, double seconds);
  void set_validation_loss(double loss) { validation_loss_ = loss; }

  /// The line for `step`: step, loss, validation loss, tokens/s since the line before, time to go at that rate.
  std::string line(long step, double loss) const;

 private:
  using Clock = std::chrono::steady_clock;

  long steps_, shown_step_;
  std::function<double(long)> tokens_before_;
  bool terminal_;
  double validation_loss_ = std::numeric_limits<double>::quiet_NaN();
  Clock::time_point shown_at_;
  double seconds_ = 0;  ///< of the steps since then
};

}  // namespace dekoder
