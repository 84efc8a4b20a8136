// SPDX-License-Identifier: Apache-2.0
#include "train/job_time.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/decimal.hpp"
#include "base/log.hpp"
#include "base/process_space.hpp"
#include "io/run/lock_file.hpp"

namespace dekoder {

std::optional<double> job_end(const std::optional<double>& time_left) {
  const double now = local_time();
  long end = 0;
  if (time_left && std::isinf(*time_left)) return std::nullopt;
  if (time_left) {
    log_info("the job has {} left (--time-left)", time_text(*time_left));
    return now - process_age() + *time_left;
  }
  const char* const announced = std::getenv("SLURM_JOB_END_TIME");
  if (announced == nullptr || read_decimal(announced, end) != Decimal::read) return std::nullopt;
  if (double(end) <= now) {
    log_warning("SLURM_JOB_END_TIME is a time that has gone by: it is of another job and ignored; unset it");
    return std::nullopt;
  }
  log_info("the job has {} left (SLURM_JOB_END_TIME)", time_text(double(end) - now));
  return double(end);
}

double JobTime::guessed_save_seconds(std::uint64_t bytes) {
  constexpr double slow_disk = 50e6;  // bytes per second
  return 5 + double(bytes) / slow_disk;
}

void JobTime::took(Work work, double seconds) {
  if (work == Work::step) {
    steps_.push_back(seconds);
    if (steps_.size() > looked_at) steps_.pop_front();
  } else {
    auto& longest = longest_[std::size_t(work)];
    longest = std::max(longest.value_or(0), seconds);
  }
}

double JobTime::of(Work work) const {
  const double step = steps_.empty() ? 0 : *std::max_element(steps_.begin(), steps_.end());
  if (work == Work::step) return step;
  const double guess = work == Work::save         ? guess_.save_seconds
                       : work == Work::evaluation ? guess_.evaluation_steps * step
                                                  : 0;
  return longest_[std::size_t(work)].value_or(guess);
}

std::string JobTime::text(double now) const {
  return fmt::format(
      "{} of the job's time are left: a step takes up to {:.2f} s, an evaluation {:.2f} s, a save {:.2f} s, and {} "
      "s are "
      "kept in reserve",
      time_text(std::max(end_.value_or(now) - now, 0.0)), of(Work::step), of(Work::evaluation), of(Work::save),
      reserve);
}

std::string JobTime::left_text(double now) const {
  return end_ ? fmt::format(", {} before the job's time limit", time_text(std::max(*end_ - now, 0.0))) : "";
}

}  // namespace dekoder
