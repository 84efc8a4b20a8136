// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>

namespace dekoder {

/// What a user asks of a run that goes on, by a file of that name in its directory; bits of one number.
enum Trigger : int { checkpoint_now = 1, evaluate_now = 2, attention_now = 4, stop_file = 8 };

/// The files checkpoint_now, evaluate_now, attention_now and stop in a run directory.
class TriggerFiles {
 public:
  using Clock = std::chrono::steady_clock;

  explicit TriggerFiles(std::filesystem::path root) : root_(std::move(root)) {}

  /// The triggers that are there. Each is taken once: its file is removed, and one that cannot be removed, as a
  /// folder of that name, is a warning, once, and ignored. Looks once a second at most; in between there are none.
  /// Call where no other process may take them (a locked run directory).
  int take(Clock::time_point now = Clock::now());

 private:
  std::filesystem::path root_;
  std::optional<Clock::time_point> looked_;
  int warned_ = 0;  ///< triggers
};

}  // namespace dekoder
