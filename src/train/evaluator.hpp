// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

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

/// The same of a run's sources. `all`: a mean token of the mixture, whose loss and bytes are the means over the
/// sources by their shares of the training samples; its tokens are the sum.
struct MixtureValidation {
  Validation all;
  std::vector<Validation> sources;  ///< of no tokens where a source has no held-out part, which counts nothing
};

/// Measures the loss on the held-out texts; its buffers are taken once.
class Evaluator {
 public:
  /// `activations` serve as scratch: their B sequences make up one forward pass. Keeps references to the last two.
  /// Throws as training_order.
  Evaluator(const DataMixture& data, const EvaluationConfig& config, const Decoder& decoder,
            const DecoderActivations& activations);

  /// All that are predicted; 0 where no source has a held-out part.
  std::uint64_t tokens() const;
  /// Of the sources, by their number.
  std::span<const ValidationWindows> windows() const { return windows_; }
  /// Of the samples that are trained on, those of a source: in (0, 1].
  double share(std::size_t source) const { return shares_.at(source); }
  /// Equal where MixtureValidation::all is comparable: ValidationWindows::digest, or SHA-256 of those of all
  /// sources with their shares.
  const std::string& digest() const { return digest_; }

  /// Forward passes over B windows each, without dropout, shared out over the ranks; overwrites the activations and
  /// nothing else. Asks `stop` before each, and returns nothing where it says so on any rank. The losses of a pass
  /// are added up, then those of all passes in ascending order: the result does not depend on the number of ranks.
  std::optional<MixtureValidation> evaluate(const ExecSpace& exec, const std::function<bool()>& stop,
                                            const Communicator& ranks = Communicator::single()) const;

 private:
  /// `nats` of all tokens of each source.
  MixtureValidation together(const std::vector<double>& nats) const;

  std::vector<ValidationWindows> windows_;
  std::vector<double> shares_;
  std::string digest_;
  const Decoder& decoder_;
  const DecoderActivations& activations_;
  HostTokenTensor2 host_inputs_, host_targets_;  ///< (B,T)
  TokenTensor2 inputs_, targets_;                ///< (B,T)
};

}  // namespace dekoder
