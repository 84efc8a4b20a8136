// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

#include "base/activity.hpp"
#include "parallel/communicator.hpp"

namespace dekoder {

/// How long (seconds) this rank may go on with nothing begun or ended. `least`: of DEKODER_WATCHDOG_SECONDS. In a
/// step, unless it waits for a checkpoint, and in the agreement on whether to stop where nothing else lies between
/// two steps, it is max(least, 20 times the median of the last steps). Else, and before the first step has ended,
/// ten times that: rank 0 may read, sample or save alone, and the shares of an evaluation differ. But as nobody
/// else works alone, rank 0 itself waits no longer between steps than in one.
double patience(const Activity& activity, int rank, double least);

/// What is to be said of a rank that has been at this for `seconds`, longer than `limit`: where it is, and for what
/// and for whom it waits.
std::string hang_message(const Activity& activity, int rank, double seconds, double limit);

/// Time in which nothing has changed, as seen by looks at it twice a second or so. A longer gap between looks
/// counts as two seconds: this process was stopped, or its machine.
class QuietTime {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  explicit QuietTime(TimePoint begin) : last_(begin) {}
  /// Seconds. `changes`: Activity's.
  double look(std::uint64_t changes, TimePoint now);

 private:
  TimePoint last_;
  std::uint64_t changes_ = 0;
  double seconds_ = 0;
};

/// Ends a run of several ranks in which nothing goes on, while it lives: MPI waits for ever for a rank that hangs
/// or cannot be reached. A rank that exceeds its patience says so and ends all. One that hangs in work of its own
/// speaks before those that wait for it, and of these the lowest first, so that there is one message as a rule.
/// Time in which this process was stopped itself does not count. On a single rank it does nothing.
class Watchdog {
 public:
  explicit Watchdog(const Communicator& ranks);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  void watch(const std::stop_token& stop) const;

  int rank_;
  std::stop_source stop_;
  std::thread thread_;
};

}  // namespace dekoder
