// SPDX-License-Identifier: Apache-2.0
#include "parallel/roll_call.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "parallel/communicator.hpp"

namespace dekoder {

namespace {

constexpr int tag = 0, listeners = 2;

}  // namespace

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
  waits_in_.resize(std::size_t(size), none);
}

void RollCall::tell(long operation) {
  long& own = waits_in_[std::size_t(rank_)];
  if (own == operation) return;
  own = operation;
  for (int to = 0; to < listeners && to < int(waits_in_.size()); ++to) {
    if (to == rank_) continue;
    MPI_Request request = MPI_REQUEST_NULL;  // nobody waits for it, as the other side may not
    check_mpi(MPI_Isend(&sent_.emplace_back(operation), 1, MPI_LONG, to, tag, comm_, &request), "MPI_Isend");
    check_mpi(MPI_Request_free(&request), "MPI_Request_free");
  }
}

void RollCall::waits() {
  tell(operation_);
}

void RollCall::goes_on() {
  tell(none);
}

std::string RollCall::missing() {
  if (rank_ >= listeners) return "other ranks";
  while (true) {
    int there = 0;
    MPI_Status status;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, tag, comm_, &there, &status), "MPI_Iprobe");
    if (there == 0) break;
    const int from = status.MPI_SOURCE;
    check_mpi(MPI_Recv(&waits_in_[std::size_t(from)], 1, MPI_LONG, from, tag, comm_, MPI_STATUS_IGNORE),
              "MPI_Recv");
  }
  std::vector<int> silent, elsewhere;
  for (std::size_t rank = 0; rank < waits_in_.size(); ++rank)
    if (waits_in_[rank] == none)
      silent.push_back(int(rank));
    else if (waits_in_[rank] != operation_)
      elsewhere.push_back(int(rank));
  const std::vector<int>& missing = silent.empty() ? elsewhere : silent;
  return missing.empty() ? "other ranks" : text_of_ranks(missing);
}

}  // namespace dekoder
