// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "train/training_model.hpp"

namespace dekoder {

/// What a rank that is not 0 hears of how the run begins.
enum class StartNews : int { tensor, read, drawn, failed };

/// The state of a run on its way from a checkpoint, which rank 0 alone reads, to the ranks that own parts of it:
/// rank 0 sends tensor after tensor as it was read, so that it never holds more of the optimizer's state than its
/// own part and one tensor. On one rank nothing travels.
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

 private:
  void scatter(std::size_t buffer, const MasterTensor1& moments, const ParameterEntry& entry,
               const HostBuffer& tensor);
  void take(std::size_t buffer, const MasterTensor1& moments, const ParameterEntry& entry);

  TrainingModel& model_;
};

}  // namespace dekoder
