// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>

#include "data/batch_loader.hpp"
#include "train/training_model.hpp"

namespace dekoder {

/// Loss on the fixed validation tokens.
struct Validation {
  double loss = 0;           ///< nats per token, every token counted once
  double bits_per_byte = 0;  ///< nats of all tokens / bytes they stand for / ln 2
  std::uint64_t tokens = 0;  ///< predicted ones
};

/// Measures the loss on the held-out text; its buffers are taken once.
class Evaluator {
 public:
  Evaluator(const TokenDataset& data, const RunConfig& config);

  /// False for a token file without a held-out part.
  bool has_tokens() const { return windows_.tokens() > 0; }
  const ValidationWindows& windows() const { return windows_; }

  /// Forward passes in micro-batches, without dropout; changes nothing that training reads. Asks `stop` before each
  /// and returns nothing where it says so.
  std::optional<Validation> evaluate(const ExecSpace& exec, TrainingModel& model,
                                     const std::function<bool()>& stop) const;

 private:
  ValidationWindows windows_;
  HostTokenTensor2 inputs_, targets_;
};

}  // namespace dekoder
