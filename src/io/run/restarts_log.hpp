// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "io/files/append_log.hpp"
#include "io/run/run_directory.hpp"

namespace dekoder {

/// restarts.jsonl, which only grows: for each start of a run that recorded something a line
/// {"event":"begin","time":"2026-11-24T21:40:03.250Z","step":40,"ranks":2,"host":"n1","job":"4711","lost_steps":3},
/// with the step that it went on from and how many of the start before it computes once more, and at its end a line
/// {"event":"end","time":...,"step":70,"reason":"SIGUSR1","steps":30,"wall_seconds":...,"step_seconds":...,
/// "save_seconds":...,"effective_time":...}: the steps that it did, its time from the start of the process on, what
/// of it went to steps and to waiting for saves, and the effective time of the run so far. Where a start left no
/// such line, as it crashed or was killed, the next one writes it, up to its last sign of life, with null for what
/// nobody knows.
///
/// Effective time is the share of the wall time of all starts that went to steps which counted: time in a queue is
/// no part of it, steps that were lost count as time alone.
class RestartsLog {
 public:
  /// Reads what earlier starts left, metrics.jsonl as well, and changes nothing; `step` is that which this start
  /// goes on from. Call before anything of the run is changed. Throws as AppendLog, and ReadError where one of the
  /// files cannot be read.
  RestartsLog(const RunPaths& paths, long step, int ranks, std::function<void()> require_ours = [] {});

  /// Once, as the first thing of this start is recorded.
  void begin();
  void step_done(double seconds);
  /// Training has waited so long for a save.
  void waited_for_save(double seconds) { save_seconds_ += seconds; }
  /// This start ends at this step; those behind `saved_step`, of the newest checkpoint, are lost and do not count.
  /// `reason`: "finished", "SIGUSR1", "the file stop", "diverged: ...".
  void end(long step, long saved_step, const std::string& reason);
  /// "effective time 96.3 % of 1:20:00 in 3 starts (2 steps were computed twice)".
  std::string summary() const;

 private:
  double effective_time(double wall_seconds) const;

  const long first_step_;
  const int ranks_;
  const RunPaths paths_;
  std::optional<AppendLog> log_;
  std::string unended_;         ///< line of the end of the start before, which left none
  long earlier_starts_ = 0;     ///< that recorded something
  double earlier_seconds_ = 0;  ///< of their wall time
  double counted_seconds_ = 0;  ///< of steps that counted
  long lost_steps_ = 0;         ///< of the start before
  long repeated_steps_ = 0;     ///< in all
  double step_seconds_ = 0, save_seconds_ = 0;
};

}  // namespace dekoder
