// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "base/error.hpp"

namespace dekoder {

/// MPI, started only where a launcher announces more than one rank: a single process needs nothing of its
/// environment. Before OpenMP is loaded, so that MPI's threads may run on every core.
class MpiSession {
 public:
  /// Throws ConfigError where MPI does not start, or sees no other ranks than this process.
  MpiSession();
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  /// Ranks of the job.
  int size() const { return size_; }
  int rank() const { return rank_; }
  /// Of all ranks the lowest that has failed, and how; nothing where none has. To be called by all.
  struct FirstFailure {
    int rank;
    ExitCode code;
  };
  std::optional<FirstFailure> first_failure(ExitCode own) const;
  /// Waits for all ranks.
  void barrier() const;

 private:
  int size_ = 1, rank_ = 0;
};

}  // namespace dekoder
