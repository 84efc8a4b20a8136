// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

namespace dekoder {

/// What a run does between two looks at the clock.
enum class Work { step, save, evaluation, sample, attention };

/// When the job of this process ends, in seconds since 1970: `time_left` seconds after the process was started,
/// else as SLURM_JOB_END_TIME says; logged. Nothing where none of them says so, or that time has gone by as the
/// process starts: the variable is of another job then.
std::optional<double> job_end(const std::optional<double>& time_left);

/// Whether a job still has time for one more step: it must have, for what may come after that, the end of a save
/// under way and a save of its own.
class JobTime {
 public:
  /// What is reckoned with as long as nothing was measured.
  struct Guess {
    double save_seconds = 0;
    double evaluation_steps = 0;  ///< an evaluation takes as long as so many steps
  };
  /// Bytes of a checkpoint to a slow disk.
  static double guessed_save_seconds(std::uint64_t bytes);

  /// `end`: seconds since 1970; nothing: there is no limit.
  JobTime(std::optional<double> end, const Guess& guess) : end_(end), guess_(guess) {}

  void took(Work work, double seconds);
  /// What is to be left before another step begins. `due`: whether that work is due after it.
  template <class Due>
  double needed(const Due& due) const {
    double seconds = reserve + 1.5 * of(Work::step) + 2 * of(Work::save);
    for (const Work work : {Work::evaluation, Work::sample, Work::attention})
      if (due(work)) seconds += of(work);
    return seconds;
  }
  /// At `now`, seconds since 1970. Not before a step was measured: a start that does none would do none the next
  /// time either.
  template <class Due>
  bool is_up(double now, const Due& due) const {
    return end_ && !steps_.empty() && *end_ - now < needed(due);
  }
  /// "0:41 of the job's time are left: a step takes 1.20 s, a save 5.00 s, ...".
  std::string text(double now) const;
  /// ", 2:58 before the job's time limit", which tells a preemption from a signal for the limit; "" without one.
  std::string left_text(double now) const;

 private:
  static constexpr double reserve = 10;         ///< seconds
  static constexpr std::size_t looked_at = 64;  ///< steps

  /// Seconds that such a work took at most, steps among the last ones.
  double of(Work work) const;

  std::optional<double> end_;
  Guess guess_;
  std::deque<double> steps_;
  std::array<std::optional<double>, 5> longest_;  ///< of each Work but the steps
};

}  // namespace dekoder
