// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/decoder.hpp"
#include "train/gradient_reducer.hpp"
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
  /// config.model.vocabulary must be set, and there are micro-batches for every rank. Throws an error naming memory
  /// and the settings that shrink it where it does not fit.
  explicit TrainingModel(const RunConfig& config, const Communicator& ranks = Communicator::single());

  /// Before the micro-batches of step number `step`, whose number a warm-up of the batch may change.
  void prepare_step(long step);

  /// Copies inputs(B,T) and targets(B,T) to the device.
  void load(const ExecSpace& exec, HostTokenTensor2 inputs, HostTokenTensor2 targets);

  /// Forward and backward of the loaded micro-batch: gradients of (grad_scale * sum of cross-entropies) are
  /// accumulated. Returns the sum of the cross-entropies in nats. Calls part_done(i) once all gradients from
  /// element i of the flat buffer on are complete, for smaller and smaller i.
  double accumulate_gradients(const ExecSpace& exec, const DropoutKey& dropout, Real grad_scale,
                              PhaseClock* clock = nullptr, const std::function<void(std::size_t)>& part_done = {});

  /// The same as one of the micro-batches of a step: this rank's, in ascending order, from zero gradients on. After
  /// the last of them the gradients of all ranks are summed up, and update() is due.
  /// `between` is called between kernels, again and again.
  double leaf_gradients(const ExecSpace& exec, const DropoutKey& dropout, Real grad_scale,
                        PhaseClock* clock = nullptr, const std::function<void()>& between = {});
  /// The sum of the z-losses of the last micro-batch, nats; 0 where the model has none.
  double z_loss(const ExecSpace& exec) const { return decoder_.z_loss(exec, activations_); }
  /// The optimizer's step number `step`, on all ranks. Returns the norm; throws as Optimizer::step.
  double update(const ExecSpace& exec, long step, PhaseClock* clock = nullptr);

  const RunConfig& config() const { return config_; }
  const Communicator& ranks() const { return ranks_; }
  const Shards& shards() const { return shards_; }
  const GradientReducer& reducer() const { return *reducer_; }
  ParameterStore& store() { return store_; }
  const ParameterStore& store() const { return store_; }
  Optimizer& optimizer() { return optimizer_; }
  const Optimizer& optimizer() const { return optimizer_; }
  /// Draws the parameters that a run begins with.
  void initialise(const ExecSpace& exec);
  /// Runs body() with the parameters' average in their place on all ranks, where the run keeps one; it takes no
  /// memory, as they change places. Should body throw, they stay so, and the run must end.
  void with_average(const ExecSpace& exec, const std::function<void()>& body);
  /// What a checkpoint holds: the parameters and the optimizer's state, of which this rank may own a part.
  std::vector<NamedBuffer> state() const;
  /// Who owns the parts of a tensor in the buffer `buffer` of the state, and where in it; none, where the buffer
  /// does not hold it.
  std::vector<OwnedPart> parts_of(std::size_t buffer, const ParameterEntry& entry) const;
  /// XXH64 of the parameters' bits, to compare them between ranks or runs.
  std::uint64_t parameter_digest() const;
  const Decoder& decoder() const { return decoder_; }
  const DecoderActivations& activations() const { return activations_; }
  std::size_t activation_bytes() const { return arena_.bytes(); }

 private:
  RunConfig config_;
  Communicator ranks_;
  ParameterStore store_;
  std::vector<std::size_t> borders_;  ///< backward_borders
  Shards shards_;
  std::unique_ptr<GradientReducer> reducer_;
  Optimizer optimizer_;
  Decoder decoder_;
  ActivationArena arena_;
  DecoderActivations activations_;
  TokenTensor2 inputs_, targets_;
  long leaves_done_ = 0;  ///< of a step, by this rank
};

/// How the flat buffers of a model are shared out over ranks.
Shards shards_of(const ModelConfig& model, const ParameterLayout& layout, int ranks);

/// "step 14: the loss is nan", where nan has no sign.
std::string loss_is_not_finite(long step, double loss);

/// Micro-batches of a step.
long leaves_of_step(const RunConfig& config, long step);
/// Of every size that a run's steps have, training.batch first.
std::vector<long> leaves_of_steps(const RunConfig& config);

}  // namespace dekoder
