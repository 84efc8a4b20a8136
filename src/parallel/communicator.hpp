// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.hpp"
#include "parallel/shards.hpp"

namespace dekoder {

/// The ranks of a run, and all that they say to each other but gradients. Every function but rank() and size() is
/// to be called by all ranks in the same order. Sums of what one rank alone contributes are exact, so that no
/// result depends on the order in which MPI adds. Every error of MPI is a std::runtime_error.
class Communicator {
 public:
  /// MPI_COMM_WORLD where MPI is up; before MPI_Init (a test, `dekoder describe`) a single process.
  static Communicator world();
  /// This process alone.
  static Communicator single() { return Communicator(MPI_COMM_NULL); }

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool root() const { return rank_ == 0; }
  MPI_Comm handle() const { return comm_; }

  /// Largest value over all ranks: how ranks agree to stop at the same step.
  int max(int value) const;
  long min(long value) const;
  /// Element by element over all ranks; each is 0 on all ranks but one, whose value comes out unchanged.
  void unite(std::span<double> values) const;
  /// Rank 0's value.
  template <class Value>
  Value from_root(Value value) const {
    static_assert(std::is_trivially_copyable_v<Value>);
    broadcast(std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  void broadcast(std::span<std::byte> bytes) const;
  /// On rank 0 every rank's text, on the others nothing.
  std::vector<std::string> gather(const std::string& own) const;
  /// Runs act() on rank 0 alone. Where it throws, rank 0 rethrows that, and the others ElsewhereError.
  template <class Action>
  void on_root(const Action& act) const {
    std::exception_ptr failure;
    if (root()) try {
        act();
      } catch (...) {
        failure = std::current_exception();
      }
    share_failure(failure);
  }
  /// Every rank's pieces of a flat buffer, in host memory, to all ranks.
  void gather(const Shards& shards, void* buffer, std::size_t element_bytes) const;

 private:
  explicit Communicator(MPI_Comm comm);
  void share_failure(const std::exception_ptr& failure) const;

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
};

/// Throws std::runtime_error with MPI's text for anything but MPI_SUCCESS; `call` names the function.
void check_mpi(int code, const char* call);

/// Whether MPI takes pointers to a GPU's memory, as it says of itself.
bool mpi_reaches_devices();

/// What messages between two ranks are told apart by. Those of gradients, one for each sum of each bucket, count on
/// from theirs.
enum MessageTag : int { state_tag, wanted_tag, saved_tag, gradient_tag };

/// Point-to-point messages under way.
class Messages {
 public:
  explicit Messages(const Communicator& ranks) : comm_(ranks.handle()) {}
  /// The memory must stay as it is until all are done.
  template <class Value>
  void send(const Value* data, std::size_t elements, int to, int tag) {
    post(data, elements * sizeof(Value), to, tag);
  }
  template <class Value>
  void receive(Value* data, std::size_t elements, int from, int tag) {
    expect(data, elements * sizeof(Value), from, tag);
  }
  /// Lets MPI work on, which it does in calls alone; whether all are done.
  bool done();
  void wait();
  std::uint64_t bytes_sent() const { return bytes_sent_; }

 private:
  void post(const void* data, std::size_t bytes, int to, int tag);
  void expect(void* data, std::size_t bytes, int from, int tag);

  MPI_Comm comm_;
  std::vector<MPI_Request> requests_;
  std::uint64_t bytes_sent_ = 0;
};

}  // namespace dekoder
