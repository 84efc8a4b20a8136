// SPDX-License-Identifier: Apache-2.0
#include "parallel/communicator.hpp"

#include <fmt/format.h>
#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

#include <array>
#include <climits>
#include <numeric>
#include <stdexcept>

#include "base/exit_report.hpp"

namespace dekoder {

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw std::runtime_error(fmt::format("{} failed: {}", call, text.data()));
}

namespace {

int count_of(std::size_t elements) {
  if (elements > std::size_t(INT_MAX)) throw std::logic_error("a message of more than 2^31 - 1 elements");
  return static_cast<int>(elements);
}

}  // namespace

bool mpi_reaches_devices() {
#if defined(MPIX_CUDA_AWARE_SUPPORT)
  return MPIX_Query_cuda_support() != 0;
#else
  return false;
#endif
}

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

long Communicator::min(long value) const {
  if (size_ == 1) return value;
  long smallest = value;
  check_mpi(MPI_Allreduce(&value, &smallest, 1, MPI_LONG, MPI_MIN, comm_), "MPI_Allreduce");
  return smallest;
}

void Communicator::unite(std::span<double> values) const {
  if (size_ == 1 || values.empty()) return;
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, values.data(), count_of(values.size()), MPI_DOUBLE, MPI_SUM, comm_),
            "MPI_Allreduce");
}

void Communicator::broadcast(std::span<std::byte> bytes) const {
  if (size_ == 1) return;
  check_mpi(MPI_Bcast(bytes.data(), count_of(bytes.size()), MPI_BYTE, 0, comm_), "MPI_Bcast");
}

std::vector<std::string> Communicator::gather(const std::string& own) const {
  if (size_ == 1) return {own};
  const int length = count_of(own.size());
  std::vector<int> lengths(std::size_t(size_), 0), places(lengths.size(), 0);
  check_mpi(MPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, comm_), "MPI_Gather");
  std::exclusive_scan(lengths.begin(), lengths.end(), places.begin(), 0);
  std::string all(root() ? std::size_t(places.back() + lengths.back()) : 0, ' ');
  check_mpi(
      MPI_Gatherv(own.data(), length, MPI_BYTE, all.data(), lengths.data(), places.data(), MPI_BYTE, 0, comm_),
      "MPI_Gatherv");
  std::vector<std::string> texts;
  for (std::size_t rank = 0; root() && rank < lengths.size(); ++rank)
    texts.push_back(all.substr(std::size_t(places[rank]), std::size_t(lengths[rank])));
  return texts;
}

void Communicator::share_failure(const std::exception_ptr& failure) const {
  const ExitCode code = from_root(failure ? failure_of(failure).code : ExitCode::finished);
  if (failure) std::rethrow_exception(failure);
  if (code != ExitCode::finished) throw ElsewhereError(code);
}

void Communicator::gather(const Shards& shards, void* buffer, std::size_t element_bytes) const {
  if (size_ == 1) return;
  const std::size_t buckets = shards.buckets().size();
  std::vector<MPI_Request> requests(buckets, MPI_REQUEST_NULL);
  std::vector<std::vector<int>> counts(buckets), places(buckets);
  for (std::size_t b = 0; b < buckets; ++b) {
    const std::size_t begin = shards.buckets()[b].begin;
    for (int rank = 0; rank < size_; ++rank) {
      const FlatRange piece = shards.piece(b, rank);
      counts[b].push_back(count_of(piece.size() * element_bytes));
      places[b].push_back(count_of((piece.begin - begin) * element_bytes));
    }
    std::byte* const bucket = static_cast<std::byte*>(buffer) + begin * element_bytes;
    check_mpi(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, bucket, counts[b].data(), places[b].data(),
                              MPI_BYTE, comm_, &requests[b]),
              "MPI_Iallgatherv");
  }
  check_mpi(MPI_Waitall(count_of(buckets), requests.data(), MPI_STATUSES_IGNORE), "MPI_Waitall");
}

void Messages::post(const void* data, std::size_t bytes, int to, int tag) {
  check_mpi(MPI_Isend(data, count_of(bytes), MPI_BYTE, to, tag, comm_, &requests_.emplace_back(MPI_REQUEST_NULL)),
            "MPI_Isend");
  bytes_sent_ += bytes;
}

void Messages::expect(void* data, std::size_t bytes, int from, int tag) {
  check_mpi(MPI_Irecv(data, count_of(bytes), MPI_BYTE, from, tag, comm_, &requests_.emplace_back(MPI_REQUEST_NULL)),
            "MPI_Irecv");
}

bool Messages::done() {
  if (requests_.empty()) return true;
  int all = 0;
  check_mpi(MPI_Testall(count_of(requests_.size()), requests_.data(), &all, MPI_STATUSES_IGNORE), "MPI_Testall");
  if (all != 0) requests_.clear();
  return all != 0;
}

void Messages::wait() {
  if (requests_.empty()) return;
  check_mpi(MPI_Waitall(count_of(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE), "MPI_Waitall");
  requests_.clear();
}

}  // namespace dekoder
