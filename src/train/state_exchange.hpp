// SPDX-License-Identifier: Apache-2.0
// The state of a run between its checkpoints, which rank 0 alone reads and writes, and the ranks that own parts of
// it.
#pragma once

#include <functional>
#include <vector>

#include "train/training_model.hpp"

namespace dekoder {

/// What a rank that is not 0 hears of how the run begins.
enum class StartNews : int { tensor, read, drawn, failed };

/// Rank 0 takes tensor after tensor from its owners to write it, or sends it to them as it was read, so that it
/// never holds more of the optimizer's state than its own part and one tensor. On one rank nothing travels.
class StateExchange {
 public:
  /// Keeps a reference.
  explicit StateExchange(TrainingModel& model) : model_(model) {}

  /// Rank 0: buffers for read_checkpoint, any number of times; then tell the others how it ended.
  std::vector<NamedBuffer> to_owners();
  void tell(StartNews news, ExitCode code = ExitCode::finished) const;
  /// The others: takes tensors as they come, until rank 0 tells: whether the state was read. Throws ElsewhereError
  /// where it has failed.
  bool follow_reading();

  /// Calls write(buffers) on rank 0, with buffers for write_checkpoint, while the others give what they own;
  /// rethrows on rank 0 what it threw.
  void collect(const std::function<void(const std::vector<NamedBuffer>&)>& write);

 private:
  struct Overlap {
    int rank;
    FlatRange in_tensor, in_moments;  ///< elements of the tensor, and of its owner's moments
  };
  std::vector<Overlap> overlaps(const ParameterEntry& entry) const;
  HostBuffer gather(const MasterTensor1& moments, const ParameterEntry& entry);
  void scatter(const MasterTensor1& moments, const ParameterEntry& entry, const HostBuffer& tensor);
  void give(const MasterTensor1& moments, const ParameterEntry& entry);
  void take(const MasterTensor1& moments, const ParameterEntry& entry);

  TrainingModel& model_;
};

}  // namespace dekoder
