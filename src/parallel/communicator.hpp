// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

namespace dekoder {

/// The ranks of a run. Before MPI_Init (a test, `dekoder describe`) it is a single process.
class Communicator {
 public:
  /// MPI_COMM_WORLD where MPI is up.
  static Communicator world();

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// Largest value over all ranks: how ranks agree to stop at the same step.
  int max(int value) const;

 private:
  explicit Communicator(MPI_Comm comm);

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
};

}  // namespace dekoder
