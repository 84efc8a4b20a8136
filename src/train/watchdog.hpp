// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "parallel/communicator.hpp"

namespace dekoder {

/// Ends a run of several ranks in which nothing goes on: MPI waits for ever for a rank that hangs or cannot be
/// reached. A rank whose phase takes longer than its limit says which one, and ends all. Time in which this process
/// was stopped itself does not count. On a single rank it does nothing.
class Watchdog {
 public:
  explicit Watchdog(const Communicator& ranks);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// A phase of a step begins: forward and backward of a micro-batch, the exchange of gradients, ... `name` is a
  /// literal. A step may take max(60 s, 20 times the median of the last ones).
  void step_phase(const char* name) { phase_ = name; }
  void step_done(double seconds);
  /// What happens between steps, and may take ten minutes: an evaluation, a sample, a checkpoint.
  void other_phase(const char* name);

 private:
  void watch(const std::stop_token& stop);
  void restart_clock(double limit);

  int rank_ = 0;
  double least_ = 60, other_limit_ = 600;  ///< seconds
  std::vector<double> steps_;              ///< seconds of the last ones, a ring
  std::size_t next_ = 0;
  std::atomic<const char*> phase_ = "start";
  std::atomic<double> limit_ = 600;  ///< of what goes on
  std::atomic<double> passed_ = 0;   ///< since it began
  std::stop_source stop_;
  std::thread thread_;
};

}  // namespace dekoder
