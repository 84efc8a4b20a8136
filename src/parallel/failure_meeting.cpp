// SPDX-License-Identifier: Apache-2.0
#include "parallel/failure_meeting.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "base/log.hpp"

namespace dekoder {

FailureMeeting::FailureMeeting(const Communicator& ranks) : rank_(ranks.rank()), size_(ranks.size()) {
  if (size_ > 1) check_mpi(MPI_Comm_dup(ranks.handle(), &comm_), "MPI_Comm_dup");
}

FailureMeeting::~FailureMeeting() {
  if (comm_ != MPI_COMM_NULL) MPI_Comm_free(&comm_);
}

bool FailureMeeting::all_come() const {
  constexpr std::chrono::seconds patience{3};
  MPI_Request request = MPI_REQUEST_NULL;
  int all = 0;
  const auto end = std::chrono::steady_clock::now() + patience;
  bool works = MPI_Ibarrier(comm_, &request) == MPI_SUCCESS;
  while (works && all == 0 && std::chrono::steady_clock::now() < end) {
    works = MPI_Test(&request, &all, MPI_STATUS_IGNORE) == MPI_SUCCESS;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return all != 0;
}

void FailureMeeting::end(const Failure& failure) const {
  const bool together = size_ == 1 || all_come();
  // Of equal messages the first one is enough.
  unsigned long own = failure.message.empty() ? 0 : std::hash<std::string>{}(failure.message) | 1;
  std::vector<unsigned long> all(std::size_t(size_), own);
  if (together && size_ > 1) MPI_Allgather(&own, 1, MPI_UNSIGNED_LONG, all.data(), 1, MPI_UNSIGNED_LONG, comm_);
  const auto before = all.begin() + (together ? rank_ : 0);
  if (own != 0 && std::find(all.begin(), before, own) == before) log_on_any_rank(failure.message);
  if (!together) {
    log_on_any_rank("this rank has failed alone; the others are ended");
    MPI_Abort(comm_, static_cast<int>(failure.code));
  }
  if (size_ > 1) MPI_Barrier(comm_);  // no rank ends, and takes the others along, before the message is out
}

}  // namespace dekoder
