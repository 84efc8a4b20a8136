// SPDX-License-Identifier: Apache-2.0
#include "parallel/communicator.hpp"

#include <fmt/ranges.h>
#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

#include <array>
#include <chrono>
#include <climits>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string_view>
#include <thread>

#include "base/activity.hpp"
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

/// "Trainer::stop_agreed" of "bool dekoder::Trainer::stop_agreed() const".
std::string name_of(const Caller& caller) {
  std::string name = caller.function_name();
  for (const std::string_view word : {"(anonymous namespace)::", "{anonymous}::", "dekoder::"})
    for (std::size_t at; (at = name.find(word)) != std::string::npos;) name.erase(at, word.size());
  name.resize(std::min(name.find('('), name.size()));
  return name.substr(name.rfind(' ') + 1);
}

/// Waits until done(), which lets MPI work on: the one place where this program waits for other ranks. Between
/// looks it gives the CPU away: ranks and threads may be more than CPUs, and MPI's own waits take all they get.
/// `missing`: text of what has not come.
template <class Done, class Missing>
void wait_until(MPI_Comm comm, RollCall& roll_call, const Done& done, const Missing& missing) {
  using Clock = std::chrono::steady_clock;
  if (done()) return;
  const WaitNote note;
  for (auto next = Clock::now() + std::chrono::seconds(1); !done();) {
    std::this_thread::yield();
    if (Clock::now() < next) continue;
    roll_call.waits();
    note.tell(missing());
    next += std::chrono::seconds(1);
    if (note.given_up()) MPI_Abort(comm, static_cast<int>(ExitCode::internal));
  }
  roll_call.goes_on();
}

/// Waits for collective operations of one kind that have been started.
void finish(MPI_Comm comm, RollCall& roll_call, std::span<MPI_Request> requests, const char* call,
            const Caller& caller) {
  roll_call.next();
  wait_until(
      comm, roll_call,
      [&] {
        int all = 0;
        check_mpi(MPI_Testall(count_of(requests.size()), requests.data(), &all, MPI_STATUSES_IGNORE), call);
        return all != 0;
      },
      [&] { return fmt::format("{} ({} of {})", roll_call.missing(), call, name_of(caller)); });
}

/// Starts a collective operation by start(request), and waits for it.
template <class Start>
void complete(MPI_Comm comm, RollCall& roll_call, const char* call, const Caller& caller, const Start& start) {
  std::array<MPI_Request, 1> request{MPI_REQUEST_NULL};
  check_mpi(start(request.data()), call);
  finish(comm, roll_call, request, call, caller);
}

/// One value of all ranks.
template <class Value>
Value reduced(MPI_Comm comm, RollCall& roll_call, Value value, MPI_Datatype type, MPI_Op operation,
              const Caller& caller) {
  Value result = value;
  complete(comm, roll_call, "MPI_Iallreduce", caller, [&](MPI_Request* request) {
    return MPI_Iallreduce(&value, &result, 1, type, operation, comm, request);
  });
  return result;
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
  if (size_ > 1) roll_call_ = std::make_shared<RollCall>(comm_);
}

int Communicator::max(int value, Caller caller) const {
  return size_ == 1 ? value : reduced(comm_, *roll_call_, value, MPI_INT, MPI_MAX, caller);
}

long Communicator::min(long value, Caller caller) const {
  return size_ == 1 ? value : reduced(comm_, *roll_call_, value, MPI_LONG, MPI_MIN, caller);
}

void Communicator::unite(std::span<double> values, Caller caller) const {
  if (size_ == 1 || values.empty()) return;
  complete(comm_, *roll_call_, "MPI_Iallreduce", caller, [&](MPI_Request* request) {
    return MPI_Iallreduce(MPI_IN_PLACE, values.data(), count_of(values.size()), MPI_DOUBLE, MPI_SUM, comm_,
                          request);
  });
}

void Communicator::broadcast(std::span<std::byte> bytes, Caller caller) const {
  if (size_ == 1) return;
  complete(comm_, *roll_call_, "MPI_Ibcast", caller, [&](MPI_Request* request) {
    return MPI_Ibcast(bytes.data(), count_of(bytes.size()), MPI_BYTE, 0, comm_, request);
  });
}

std::vector<std::string> Communicator::gather(const std::string& own, Caller caller) const {
  if (size_ == 1) return {own};
  const int length = count_of(own.size());
  std::vector<int> lengths(std::size_t(size_), 0), places(lengths.size(), 0);
  complete(comm_, *roll_call_, "MPI_Igather", caller, [&](MPI_Request* request) {
    return MPI_Igather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, comm_, request);
  });
  std::exclusive_scan(lengths.begin(), lengths.end(), places.begin(), 0);
  std::string all(root() ? std::size_t(places.back() + lengths.back()) : 0, ' ');
  complete(comm_, *roll_call_, "MPI_Igatherv", caller, [&](MPI_Request* request) {
    return MPI_Igatherv(own.data(), length, MPI_BYTE, all.data(), lengths.data(), places.data(), MPI_BYTE, 0, comm_,
                        request);
  });
  std::vector<std::string> texts;
  for (std::size_t rank = 0; root() && rank < lengths.size(); ++rank)
    texts.push_back(all.substr(std::size_t(places[rank]), std::size_t(lengths[rank])));
  return texts;
}

void Communicator::share_failure(const std::exception_ptr& failure, const Caller& caller) const {
  const ExitCode code = from_root(failure ? failure_of(failure).code : ExitCode::finished, caller);
  if (failure) std::rethrow_exception(failure);
  if (code != ExitCode::finished) throw ElsewhereError(code);
}

void Communicator::gather(const Shards& shards, void* buffer, std::size_t element_bytes, Caller caller) const {
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
  finish(comm_, *roll_call_, requests, "MPI_Iallgatherv", caller);
}

void Messages::post(const void* data, std::size_t bytes, int to, int tag) {
  check_mpi(MPI_Isend(data, count_of(bytes), MPI_BYTE, to, tag, comm_, &requests_.emplace_back(MPI_REQUEST_NULL)),
            "MPI_Isend");
  peers_.push_back(to);
  bytes_sent_ += bytes;
}

void Messages::expect(void* data, std::size_t bytes, int from, int tag) {
  check_mpi(MPI_Irecv(data, count_of(bytes), MPI_BYTE, from, tag, comm_, &requests_.emplace_back(MPI_REQUEST_NULL)),
            "MPI_Irecv");
  peers_.push_back(from);
}

void Communicator::wait_until(const std::function<bool()>& done, const std::string& missing) const {
  dekoder::wait_until(comm_, *roll_call_, done, [&] { return missing; });
}

bool Messages::done() {
  if (requests_.empty()) return true;
  int all = 0;
  check_mpi(MPI_Testall(count_of(requests_.size()), requests_.data(), &all, MPI_STATUSES_IGNORE), "MPI_Testall");
  if (all == 0) return false;
  requests_.clear();
  peers_.clear();
  return true;
}

std::string Messages::missing() const {
  std::set<int> ranks;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    int done = 0;
    check_mpi(MPI_Request_get_status(requests_[i], &done, MPI_STATUS_IGNORE), "MPI_Request_get_status");
    if (done == 0) ranks.insert(peers_[i]);
  }
  return text_of_ranks({ranks.begin(), ranks.end()});
}

void Messages::wait(const std::string& what) {
  if (requests_.empty()) return;
  wait_until(comm_, *roll_call_, [&] { return done(); }, [&] { return fmt::format("{} ({})", missing(), what); });
}

void Messages::wait(Caller caller) {
  wait("messages of " + name_of(caller));
}

}  // namespace dekoder
