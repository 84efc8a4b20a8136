// SPDX-License-Identifier: Apache-2.0
#include "base/activity.hpp"

#include <atomic>
#include <mutex>
#include <thread>
#include <utility>

#include "base/elapsed.hpp"

namespace dekoder {

namespace {

constexpr std::size_t remembered_steps = 64;

std::mutex mutex;  // of what follows
Activity activity;
std::size_t next_step = 0;  // of the ring

std::atomic<bool> watchdog_gave_up = false;

const std::thread::id computes = std::this_thread::get_id();

void remember_step(double seconds) {
  if (activity.step_seconds.size() < remembered_steps)
    activity.step_seconds.push_back(seconds);
  else
    activity.step_seconds[next_step++ % remembered_steps] = seconds;
}

}  // namespace

Activity current_activity() {
  const std::scoped_lock lock(mutex);
  return activity;
}

RegionNote::RegionNote(std::string_view name) : counts_(std::this_thread::get_id() == computes) {
  if (!counts_) return;
  begin_ = std::chrono::steady_clock::now();
  const std::scoped_lock lock(mutex);
  activity.regions.emplace_back(name);
  ++activity.changes;
}

RegionNote::~RegionNote() {
  if (!counts_) return;
  const std::scoped_lock lock(mutex);
  if (activity.regions.back() == "step") remember_step(seconds_since(begin_));
  activity.regions.pop_back();
  ++activity.changes;
}

WaitNote::WaitNote() {
  const std::scoped_lock lock(mutex);
  activity.waits = true;
  ++activity.changes;
}

WaitNote::~WaitNote() {
  const std::scoped_lock lock(mutex);
  activity.waits = false;
  activity.waits_for.clear();
  ++activity.changes;
}

void WaitNote::tell(std::string waits_for) const {
  const std::scoped_lock lock(mutex);
  activity.waits_for = std::move(waits_for);
}

bool WaitNote::given_up() const {
  return watchdog_gave_up;
}

void give_up() {
  watchdog_gave_up = true;
}

}  // namespace dekoder
