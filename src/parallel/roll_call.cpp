// SPDX-License-Identifier: Apache-2.0
#include "parallel/roll_call.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "parallel/communicator.hpp"

namespace dekoder {

std::string text_of_ranks(const std::vector<int>& ranks) {
  constexpr std::size_t most = 16;
  if (ranks.size() > most) return fmt::format("{} ranks from {} on", ranks.size(), ranks.front());
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", fmt::join(ranks, ", "));
}

RollCall::RollCall(MPI_Comm ranks) {
  int size = 0;
  check_mpi(MPI_Comm_dup(ranks, &comm_), "MPI_Comm_dup");
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size), "MPI_Comm_size");
  come_to_.resize(std::size_t(size), 0);
}

std::string RollCall::missing() {
  constexpr int tag = 0, listeners = 2;
  const int listening = std::min(listeners, int(come_to_.size()));
  for (int to = 0; to < listening && told_ < operation_; ++to) {
    if (to == rank_) continue;
    MPI_Request request = MPI_REQUEST_NULL;  // nobody waits for it, as the other side may not
    check_mpi(MPI_Isend(&sent_.emplace_back(operation_), 1, MPI_LONG, to, tag, comm_, &request), "MPI_Isend");
    check_mpi(MPI_Request_free(&request), "MPI_Request_free");
  }
  told_ = come_to_[std::size_t(rank_)] = operation_;
  if (rank_ >= listening) return "other ranks";
  while (true) {
    int there = 0;
    MPI_Status status;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, tag, comm_, &there, &status), "MPI_Iprobe");
    if (there == 0) break;
    const int from = status.MPI_SOURCE;
    check_mpi(MPI_Recv(&come_to_[std::size_t(from)], 1, MPI_LONG, from, tag, comm_, MPI_STATUS_IGNORE), "MPI_Recv");
  }
  std::vector<int> ranks;
  for (std::size_t rank = 0; rank < come_to_.size(); ++rank)
    if (come_to_[rank] < operation_) ranks.push_back(int(rank));
  return ranks.empty() ? "other ranks" : text_of_ranks(ranks);
}

}  // namespace dekoder
