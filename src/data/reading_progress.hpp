// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>

namespace dekoder {

/// Shows how far a reading is: on a terminal one live line, rewritten five times a second; in a file a plain line
/// every ten seconds.
class ReadingProgress {
 public:
  /// `name`: of the work; "": shows none. `total`: bytes there are, 0: not known.
  ReadingProgress(const char* name, std::uint64_t total);
  /// Takes the live line away.
  ~ReadingProgress();
  ReadingProgress(const ReadingProgress&) = delete;

  void show(std::uint64_t bytes);

 private:
  const char* name_;
  std::uint64_t total_;
  bool terminal_, live_ = false;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now(), shown_ = begin_;
};

}  // namespace dekoder
