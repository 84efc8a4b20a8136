// SPDX-License-Identifier: Apache-2.0
#include "train/watchdog.hpp"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <mutex>

#include "base/helper_thread.hpp"
#include "base/log.hpp"

namespace dekoder {

namespace {

constexpr std::size_t remembered = 64;

}  // namespace

Watchdog::Watchdog(const Communicator& ranks) : rank_(ranks.rank()) {
  if (ranks.size() == 1) return;
  if (const char* seconds = std::getenv("DEKODER_WATCHDOG_SECONDS")) {  // the launcher has checked it
    least_ = std::atof(seconds);
    other_limit_ = 10 * least_;
  }
  limit_ = other_limit_;
  thread_ = start_helper_thread("watchdog", [this, stop = stop_.get_token()] { watch(stop); });
}

Watchdog::~Watchdog() {
  if (!thread_.joinable()) return;
  stop_.request_stop();
  thread_.join();
}

void Watchdog::restart_clock(double limit) {
  limit_ = limit;
  passed_ = 0;
}

void Watchdog::step_done(double seconds) {
  if (steps_.size() < remembered)
    steps_.push_back(seconds);
  else
    steps_[next_++ % remembered] = seconds;
  std::vector<double> sorted = steps_;
  std::nth_element(sorted.begin(), sorted.begin() + long(sorted.size() / 2), sorted.end());
  restart_clock(std::max(least_, 20 * sorted[sorted.size() / 2]));
}

void Watchdog::other_phase(const char* name) {
  phase_ = name;
  restart_clock(other_limit_);
}

void Watchdog::watch(const std::stop_token& stop) {
  constexpr double tick = 0.5;
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  auto last = std::chrono::steady_clock::now();
  while (!wake.wait_for(lock, stop, std::chrono::duration<double>(tick), [&] { return stop.stop_requested(); })) {
    const auto now = std::chrono::steady_clock::now();
    // A longer gap: this process was stopped, or its machine.
    passed_ = passed_ + std::min(std::chrono::duration<double>(now - last).count(), 4 * tick);
    last = now;
    if (passed_ < limit_) continue;
    log_on_any_rank(
        fmt::format("error: rank {} is in '{}' for {:.0f} s without an end (limit {:.0f} s): another rank hangs, "
                    "is stopped or cannot "
                    "be reached; all ranks are ended, and the same command goes on from the last checkpoint",
                    rank_, phase_.load(), passed_.load(), limit_.load()));
    // Not MPI_Abort, which only the thread that trains may call: the launcher ends the others.
    _exit(static_cast<int>(ExitCode::internal));
  }
}

}  // namespace dekoder
