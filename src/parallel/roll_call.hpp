// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <deque>
#include <string>
#include <vector>

namespace dekoder {

/// "rank 2", "ranks 2, 5", or how many where they are more than a few. In ascending order, at least one.
std::string text_of_ranks(const std::vector<int>& ranks);

/// Who has come to a collective operation that does not end: MPI does not tell. A rank that has waited for long
/// says so, once for each operation, to ranks 0 and 1, of which at most one is the rank that hangs.
class RollCall {
 public:
  /// To be made by all ranks at the same place.
  explicit RollCall(MPI_Comm ranks);

  /// Every rank counts its collective operations: the next one begins.
  void next() { ++operation_; }
  /// This rank has waited for long in the current operation. On ranks 0 and 1 those that have not said the same, so
  /// far; on others, and where all have, nothing is known, and "other ranks" is returned.
  std::string missing();

 private:
  MPI_Comm comm_ =
      MPI_COMM_NULL;  ///< of its own; never freed, as a rank that fails alone would wait for the others
  int rank_ = 0;
  long operation_ = 0, told_ = 0;
  std::deque<long> sent_;      ///< what messages carry stays where it is
  std::vector<long> come_to_;  ///< by rank: the last operation that it has waited in for long
};

}  // namespace dekoder
