// SPDX-License-Identifier: Apache-2.0
#include "parallel/watchdog.hpp"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>

#include "base/elapsed.hpp"
#include "base/helper_thread.hpp"
#include "base/log.hpp"

namespace dekoder {

namespace {

double least_patience() {
  const char* seconds = std::getenv("DEKODER_WATCHDOG_SECONDS");  // the launcher has checked it
  return seconds != nullptr ? std::atof(seconds) : 60;
}

/// Seconds by which a rank that waits speaks after its patience has ended: those with less to say, or that say the
/// same, are mostly ended by then.
double turn(const Activity& activity, int rank) {
  return activity.waits ? 1 + 2 * std::min(rank, 5) : 0;
}

bool is_in(const Activity& activity, const char* region) {
  return !activity.regions.empty() && activity.regions.front() == region;
}

/// Also within a step: one that cannot go on ends after the checkpoint under way.
bool saves(const Activity& activity) {
  return std::find(activity.regions.begin(), activity.regions.end(), "save") != activity.regions.end();
}

}  // namespace

double patience(const Activity& activity, int rank, double least) {
  std::vector<double> steps = activity.step_seconds;
  if (steps.empty()) return 10 * least;
  const auto median = steps.begin() + long(steps.size() / 2);
  std::nth_element(steps.begin(), median, steps.end());
  const double of_step = std::max(least, 20 * *median);
  const bool in_step = (is_in(activity, "step") || is_in(activity, "agreement")) && !saves(activity),
             rank_0_waits = rank == 0 && activity.waits && !is_in(activity, "evaluate");
  return in_step || rank_0_waits ? of_step : 10 * of_step;
}

std::string hang_message(const Activity& activity, int rank, double seconds, double limit) {
  const std::string place = !activity.regions.empty()       ? fmt::format("{}", fmt::join(activity.regions, ", "))
                            : activity.step_seconds.empty() ? "start"
                                                            : "between steps";
  const std::string why =
      !activity.waits ? "it hangs there: its device, its files or its machine do not answer"
                      : fmt::format("it waits for {}: what is waited for hangs, is stopped or cannot be reached",
                                    activity.waits_for.empty() ? "other ranks" : activity.waits_for);
  return fmt::format(
      "error: rank {} is in '{}' for {:.0f} s without an end (limit {:.0f} s); {}. All ranks are ended; a training "
      "goes on from its last checkpoint by the same command",
      rank, place, seconds, limit, why);
}

double QuietTime::look(std::uint64_t changes, TimePoint now) {
  constexpr double longest_gap = 2;
  seconds_ = changes != changes_ ? 0 : seconds_ + std::min(seconds_between(last_, now), longest_gap);
  changes_ = changes;
  last_ = now;
  return seconds_;
}

Watchdog::Watchdog(const Communicator& ranks) : rank_(ranks.rank()) {
  if (ranks.size() == 1) return;
  thread_ = start_helper_thread("watchdog", [this, stop = stop_.get_token()] { watch(stop); });
}

Watchdog::~Watchdog() {
  if (!thread_.joinable()) return;
  stop_.request_stop();
  thread_.join();
}

void Watchdog::watch(const std::stop_token& stop) const {
  constexpr double tick = 0.5, time_to_abort = 5;
  const double least = least_patience();
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  const auto stopped_within = [&](double seconds) {
    return wake.wait_for(lock, stop, std::chrono::duration<double>(seconds), [&] { return stop.stop_requested(); });
  };
  QuietTime quiet(std::chrono::steady_clock::now());
  while (!stopped_within(tick)) {
    const Activity activity = current_activity();
    const double passed = quiet.look(activity.changes, std::chrono::steady_clock::now());
    const double limit = patience(activity, rank_, least);
    if (passed < limit + turn(activity, rank_)) continue;
    log_on_any_rank(hang_message(activity, rank_, passed, limit));
    give_up();
    // MPI_Abort is for the thread that trains, where it waits. Where it does not come to it, the launcher sees this
    // rank end, and ends the others.
    if (activity.waits) stopped_within(time_to_abort);
    _exit(static_cast<int>(ExitCode::internal));
  }
}

}  // namespace dekoder
