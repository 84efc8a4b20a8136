// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <deque>
#include <string>
#include <vector>

namespace dekoder {

/// "rank 2", "ranks 2, 5", or how many where they are more than a few. In ascending order, at least one.
std::string text_of_ranks(const std::vector<int>& ranks);

/// Who waits, and in which collective operation, for a rank whose own wait does not end: MPI does not tell. A rank
/// that has waited for a second says so to ranks 0 and 1, of which at most one is the rank that hangs, and says
/// when it goes on.
class RollCall {
 public:
  /// To be made by all ranks at the same place.
  explicit RollCall(MPI_Comm ranks);

  /// Every rank counts its collective operations: the next one begins.
  void next() { ++operation_; }
  /// This rank has waited for long, and still waits.
  void waits();
  /// The wait has ended.
  void goes_on();
  /// On ranks 0 and 1, within a wait: the ranks that do not wait; where all do, those that do so in another
  /// operation than this one. On others, and where there are none, "other ranks".
  std::string missing();

 private:
  void tell(long operation);

  static constexpr long none = -1;

  MPI_Comm comm_ =
      MPI_COMM_NULL;  ///< of its own; never freed, as a rank that fails alone would wait for the others
  int rank_ = 0;
  long operation_ = 0;
  std::deque<long> sent_;       ///< what messages carry stays where it is
  std::vector<long> waits_in_;  ///< by rank, as it has said; this rank's own too
};

}  // namespace dekoder
