// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dekoder {

/// What the thread that computes is doing, as the watchdog, which is another one, sees it.
struct Activity {
  std::vector<std::string> regions;  ///< under way, the outermost first
  bool waits = false;                ///< for other ranks
  std::string waits_for;             ///< "rank 2 (bucket 3 of 12)"; empty in the first second of a wait
  std::uint64_t changes = 0;  ///< regions and waits that have begun or ended: as long as it grows, all goes on
  std::vector<double> step_seconds;  ///< of the last regions "step" that have ended, at most 64, in no order
};
Activity current_activity();

/// A region (tensor/region.hpp) under way as long as the object lives. Only those of the thread that loaded this
/// code count, which is the one that computes.
class RegionNote {
 public:
  explicit RegionNote(std::string_view name);
  ~RegionNote();
  RegionNote(const RegionNote&) = delete;
  RegionNote& operator=(const RegionNote&) = delete;

 private:
  bool counts_;
  std::chrono::steady_clock::time_point begin_;
};

/// A wait for other ranks as long as the object lives; on the thread that computes alone, one at a time.
class WaitNote {
 public:
  WaitNote();
  ~WaitNote();
  WaitNote(const WaitNote&) = delete;
  WaitNote& operator=(const WaitNote&) = delete;

  /// Says what is missing; called about once a second.
  void tell(std::string waits_for) const;
  /// Whether the watchdog has given up, and all ranks are to be ended.
  bool given_up() const;
};

/// The watchdog has said why.
void give_up();

}  // namespace dekoder
