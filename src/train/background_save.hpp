// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "train/training_model.hpp"

namespace dekoder {

/// How a save ended, on rank 0.
struct SaveOutcome {
  std::exception_ptr failure;  ///< what `write` threw, if it did
  double copy_seconds = 0;     ///< that the step waited for the copy
  double write_seconds = 0;    ///< that the file took, from the copy on
};

/// Saves the state of a run while training goes on, in two phases (CheckFreq: Mohan, Phanishayee, Chidambaram, FAST
/// 2021, section 4): every rank copies what it owns into host memory, which the step waits for; then a thread of
/// rank 0 writes. It takes tensors from their owners batch by batch, so that rank 0 never holds more of the state
/// than its own part and two batches. Messages are sent and received by the thread that trains, in advance().
class BackgroundSave {
 public:
  /// Writes the tensors of these buffers, in the order of the layout.
  using Write = std::function<void(const std::vector<NamedBuffer>&)>;

  /// Takes all memory; keeps a reference.
  explicit BackgroundSave(TrainingModel& model);
  /// A save under way ends: on one rank as it would have, of several without its file.
  ~BackgroundSave();
  BackgroundSave(const BackgroundSave&) = delete;
  BackgroundSave& operator=(const BackgroundSave&) = delete;

  /// Copies the state; then `write`, which rank 0 alone gives, runs in a thread of its own. On all ranks, none of
  /// which is busy.
  void begin(const ExecSpace& exec, Write write);
  /// Whether this rank still has something to do for the save.
  bool busy() const { return busy_; }
  /// Lets a save go on; costs nothing where there is none. As often as possible: between kernels.
  void advance();
  /// Waits until this rank is not busy. On all ranks.
  void finish();
  /// Once, on rank 0, after a save.
  std::optional<SaveOutcome> take_outcome() { return std::exchange(outcome_, std::nullopt); }

  /// Bytes on the host that it takes: for the copy, and on rank 0 for what arrives.
  static std::size_t copy_bytes(const Shards& shards, const ParameterLayout& layout, int rank);
  static std::size_t arrival_bytes(const Shards& shards, const ParameterLayout& layout);

 private:
  void write(const Write& write);
  HostBuffer tensor(std::size_t buffer, const ParameterEntry& entry);
  void ask_for_a_batch();
  void tell_owners(int request);
  void follow_root();
  std::vector<OwnedPart> parts_of(std::size_t tensor) const;

  TrainingModel& model_;
  std::vector<NamedBuffer> state_;
  std::vector<PinnedBuffer> copies_;  ///< of what this rank owns of each buffer
  bool busy_ = false;
  std::chrono::steady_clock::time_point copied_;
  double copy_seconds_ = 0;

  // A batch is as many tensors as fit into one of the two windows: the tensors of the buffers, one after the other.
  std::vector<std::size_t> batch_begin_;  ///< first tensor of each, and their number
  std::vector<std::size_t> place_;        ///< of each tensor in its window
  std::vector<HostBuffer> windows_;       ///< on rank 0
  std::size_t batches_ = 0;

  // Rank 0: batches asked for by the thread that trains, and its messages.
  std::size_t asked_ = 0;
  Messages wanted_, arriving_;
  int request_ = 0;
  std::optional<SaveOutcome> outcome_;
  std::thread thread_;

  // Shared with the thread that writes.
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t arrived_ = 0;   ///< batches in the windows so far
  std::size_t consumed_ = 0;  ///< batches whose window is free again
  bool abandoned_ = false, written_ = false;
  SaveOutcome result_;

  // Others: batches sent.
  std::size_t sent_ = 0;
  Messages departing_;
};

}  // namespace dekoder
