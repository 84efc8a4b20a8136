// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>

#include "data/batch_loader.hpp"
#include "model/decoder.hpp"
#include "parallel/communicator.hpp"

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
  /// `activations` serve as scratch: their B sequences make up one forward pass. Keeps references to the last two.
  Evaluator(const TokenDataset& data, const EvaluationConfig& config, const Decoder& decoder,
            const DecoderActivations& activations);

  /// False for a token file without a held-out part.
  bool has_tokens() const { return windows_.tokens() > 0; }
  const ValidationWindows& windows() const { return windows_; }

  /// Forward passes over B windows each, without dropout, shared out over the ranks; overwrites the activations and
  /// nothing else. Asks `stop` before each, and returns nothing where it says so on any rank. The losses of a pass
  /// are added up, then those of all passes in ascending order: the result does not depend on the number of ranks.
  std::optional<Validation> evaluate(const ExecSpace& exec, const std::function<bool()>& stop,
                                     const Communicator& ranks = Communicator::single()) const;

 private:
  ValidationWindows windows_;
  const Decoder& decoder_;
  const DecoderActivations& activations_;
  HostTokenTensor2 host_inputs_, host_targets_;  ///< (B,T)
  TokenTensor2 inputs_, targets_;                ///< (B,T)
};

}  // namespace dekoder
