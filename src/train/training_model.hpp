// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "model/decoder.hpp"
#include "train/optimizer.hpp"

namespace dekoder {

/// Seconds by phase. Each lap waits for the device.
class PhaseClock {
 public:
  /// Starts a step.
  void start(const ExecSpace& exec);
  /// Adds the time since the last call to `phase`.
  void lap(const ExecSpace& exec, const std::string& phase);
  const std::vector<std::pair<std::string, double>>& seconds() const { return seconds_; }
  /// The same, and begins the sums anew.
  std::vector<std::pair<std::string, double>> take() { return std::exchange(seconds_, {}); }

 private:
  std::vector<std::pair<std::string, double>> seconds_;
  std::chrono::steady_clock::time_point last_;
};

/// Everything one optimizer step touches, allocated once: parameters, gradients, moments, activations, token
/// buffers.
class TrainingModel {
 public:
  /// config.model.vocabulary must be set. Throws an error naming memory and the settings that shrink it where it
  /// does not fit.
  explicit TrainingModel(const RunConfig& config);

  /// Copies inputs(B,T) and targets(B,T) to the device.
  void load(const ExecSpace& exec, HostTokenTensor2 inputs, HostTokenTensor2 targets);

  /// Forward and backward of the loaded micro-batch: gradients of (grad_scale * sum of cross-entropies) are
  /// accumulated. Returns the sum of the cross-entropies in nats.
  double accumulate_gradients(const ExecSpace& exec, const DropoutKey& dropout, Real grad_scale,
                              PhaseClock* clock = nullptr);

  const RunConfig& config() const { return config_; }
  ParameterStore& store() { return store_; }
  const ParameterStore& store() const { return store_; }
  Optimizer& optimizer() { return optimizer_; }
  /// What a checkpoint holds: the parameters and the optimizer's state.
  std::vector<NamedBuffer> state() const;
  const Decoder& decoder() const { return decoder_; }
  const DecoderActivations& activations() const { return activations_; }
  std::size_t activation_bytes() const { return arena_.bytes(); }

 private:
  RunConfig config_;
  ParameterStore store_;
  Optimizer optimizer_;
  Decoder decoder_;
  ActivationArena arena_;
  DecoderActivations activations_;
  TokenTensor2 inputs_, targets_;
};

}  // namespace dekoder
