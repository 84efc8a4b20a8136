// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/exit_report.hpp"
#include "parallel/communicator.hpp"

namespace dekoder {

/// Where ranks that fail wait for each other. What all of them meet with ends in one message; a rank that fails
/// alone takes the others, which wait for its messages, down with it.
class FailureMeeting {
 public:
  /// To be made by all ranks at the same place, before anything may fail.
  explicit FailureMeeting(const Communicator& ranks);
  ~FailureMeeting();
  FailureMeeting(const FailureMeeting&) = delete;
  FailureMeeting& operator=(const FailureMeeting&) = delete;

  /// Logs the failure, of several ranks that have the same to say on the lowest, and returns once all ranks are
  /// here. Where they do not come within seconds, it ends all of them with this exit code.
  void end(const Failure& failure) const;

 private:
  bool all_come() const;

  int rank_, size_;
  MPI_Comm comm_ = MPI_COMM_NULL;  ///< of its own: nothing that is under way is mistaken for it
};

}  // namespace dekoder
