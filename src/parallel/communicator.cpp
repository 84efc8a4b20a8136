// SPDX-License-Identifier: Apache-2.0
#include "parallel/communicator.hpp"

#include <fmt/format.h>

#include <array>
#include <stdexcept>

namespace dekoder {

namespace {

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw std::runtime_error(fmt::format("{} failed: {}", call, text.data()));
}

}  // namespace

Communicator Communicator::world() {
  int initialised = 0;
  check_mpi(MPI_Initialized(&initialised), "MPI_Initialized");
  return Communicator(initialised != 0 ? MPI_COMM_WORLD : MPI_COMM_NULL);
}

Communicator::Communicator(MPI_Comm comm) : comm_(comm) {
  if (comm_ == MPI_COMM_NULL) return;
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
}

int Communicator::max(int value) const {
  if (size_ == 1) return value;
  int largest = value;
  check_mpi(MPI_Allreduce(&value, &largest, 1, MPI_INT, MPI_MAX, comm_), "MPI_Allreduce");
  return largest;
}

}  // namespace dekoder
