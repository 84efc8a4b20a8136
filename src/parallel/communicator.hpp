// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <source_location>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.hpp"
#include "parallel/roll_call.hpp"
#include "parallel/shards.hpp"

namespace dekoder {

/// Who waits for other ranks, for the watchdog's message. A default argument: the function that calls.
using Caller = std::source_location;

/// The ranks of a run, and all that they say to each other but gradients. Every function but rank() and size() is
/// to be called by all ranks in the same order. Sums of what one rank alone contributes are exact, so that no
/// result depends on the order in which MPI adds. Every error of MPI is a std::runtime_error. Who waits leaves his
/// CPU to other threads, and is watched (parallel/watchdog.hpp).
class Communicator {
 public:
  /// MPI_COMM_WORLD where MPI is up, to be made by all ranks at the same place; before MPI_Init (a test, `dekoder
  /// describe`) a single process.
  static Communicator world();
  /// This process alone.
  static Communicator single() { return Communicator(MPI_COMM_NULL); }

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool root() const { return rank_ == 0; }
  MPI_Comm handle() const { return comm_; }
  const std::shared_ptr<RollCall>& roll_call() const { return roll_call_; }  ///< null on a single rank

  /// Largest value over all ranks: how ranks agree to stop at the same step.
  int max(int value, Caller caller = Caller::current()) const;
  long min(long value, Caller caller = Caller::current()) const;
  /// Element by element over all ranks; each is 0 on all ranks but one, whose value comes out unchanged.
  void unite(std::span<double> values, Caller caller = Caller::current()) const;
  /// Rank 0's value.
  template <class Value>
  Value from_root(Value value, Caller caller = Caller::current()) const {
    static_assert(std::is_trivially_copyable_v<Value>);
    broadcast(std::as_writable_bytes(std::span(&value, 1)), caller);
    return value;
  }
  void broadcast(std::span<std::byte> bytes, Caller caller = Caller::current()) const;
  /// On rank 0 every rank's text, on the others nothing.
  std::vector<std::string> gather(const std::string& own, Caller caller = Caller::current()) const;
  /// Runs act() on rank 0 alone. Where it throws, rank 0 rethrows that, and the others ElsewhereError.
  template <class Action>
  void on_root(const Action& act, Caller caller = Caller::current()) const {
    std::exception_ptr failure;
    if (root()) try {
        act();
      } catch (...) {
        failure = std::current_exception();
      }
    share_failure(failure, caller);
  }
  /// Of several ranks: until done(), which lets messages go on; `missing`, for the watchdog: "rank 0 (a
  /// checkpoint)".
  void wait_until(const std::function<bool()>& done, const std::string& missing) const;
  /// Every rank's pieces of a flat buffer, in host memory, to all ranks.
  void gather(const Shards& shards, void* buffer, std::size_t element_bytes,
              Caller caller = Caller::current()) const;

 private:
  explicit Communicator(MPI_Comm comm);
  void share_failure(const std::exception_ptr& failure, const Caller& caller) const;

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::shared_ptr<RollCall> roll_call_;  ///< of several ranks
};

/// Throws std::runtime_error with MPI's text for anything but MPI_SUCCESS; `call` names the function.
void check_mpi(int code, const char* call);

/// Whether MPI takes pointers to a GPU's memory, as it says of itself.
bool mpi_reaches_devices();

/// What messages between two ranks are told apart by. Those of gradients, one for each sum of each bucket, count on
/// from theirs.
enum MessageTag : int { state_tag, wanted_tag, saved_tag, test_tag, gradient_tag };

/// Point-to-point messages under way.
class Messages {
 public:
  explicit Messages(const Communicator& ranks) : comm_(ranks.handle()), roll_call_(ranks.roll_call()) {}
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
  /// `what`: for the watchdog's message, as "bucket 3 of 12".
  void wait(const std::string& what);
  void wait(Caller caller = Caller::current());
  std::uint64_t bytes_sent() const { return bytes_sent_; }

 private:
  void post(const void* data, std::size_t bytes, int to, int tag);
  void expect(void* data, std::size_t bytes, int from, int tag);
  /// "rank 2" or "ranks 2, 5": whose messages are not done.
  std::string missing() const;

  MPI_Comm comm_;
  std::shared_ptr<RollCall> roll_call_;
  std::vector<MPI_Request> requests_;
  std::vector<int> peers_;  ///< of each request
  std::uint64_t bytes_sent_ = 0;
};

}  // namespace dekoder
