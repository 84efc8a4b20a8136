// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "config/run_config.hpp"
#include "io/run/checkpoint.hpp"
#include "kernels/muon.hpp"
#include "model/decoder.hpp"
#include "parallel/communicator.hpp"
#include "parallel/shards.hpp"
#include "tensor/parameter_store.hpp"

namespace dekoder {

/// Learning rate of optimizer step `step`, counted from 0: linear warm-up to the peak, then constant, linear or
/// cosine (Loshchilov, Hutter 2017) to the final rate at the last step, wsd (constant, then linear over the last
/// decay_fraction of the steps or, where these are fewer, those after the warm-up; Hu et al., MiniCPM, 2024,
/// section 4.2), or inverse_sqrt: peak sqrt(w / (step + 1)) with w = max(warmup_steps, 1) (Vaswani et al. 2017,
/// section 5.3).
double learning_rate(const TrainingConfig& training, long step);

/// Learning rates on both sides of a restart.
struct LearningRateJump {
  double last;  ///< of the step before the restart
  double next;  ///< of the first step after it
};
/// The jump of the learning rate where a run of `before` that has done `step` steps goes on with `now`; nothing
/// where the rate changes by at most 5 %, or by at most twice what one of the two schedules changes it in one step
/// there.
std::optional<LearningRateJump> learning_rate_jump(const TrainingConfig& before, const TrainingConfig& now,
                                                   long step);

/// What is whole in a layout, in ascending order, with the gaps behind.
std::vector<FlatRange> whole_ranges(const ParameterLayout& layout);

/// The scratch that muon() needs for any of these matrices; empty where there are none.
struct LargestMatrix {
  std::size_t elements = 0, shorter_side = 0;
};
LargestMatrix largest_matrix(const std::vector<HiddenMatrix>& matrices);

/// AdamW, and Muon of what is whole, with clipping by the global norm over all parameters at once; owns the
/// moments. Of several ranks each updates the pieces that it owns, and keeps the moments of these alone. Where the
/// layout is averaged, an exponential moving average of the parameters follows them (Polyak, Juditsky 1992), after
/// n steps with the decay min(training.average, (1 + n) / (10 + n)): a young one forgets the initial values fast.
class Optimizer {
 public:
  /// Allocates both moments, zero, of what this rank owns: ascending ranges that begin at multiples of
  /// reduction_leaf and together, over all ranks, are the flat buffer. The first moment of a matrix is Muon's; it
  /// has no second one.
  Optimizer(const ModelConfig& model, const ParameterLayout& layout, const Communicator& ranks,
            std::vector<FlatRange> owned);
  /// For a single rank.
  Optimizer(const ModelConfig& model, const ParameterLayout& layout);

  /// One step with the gradients in `store`, of which what this rank owns is zero afterwards. Gradients are scaled
  /// by min(1, clip_norm / (norm + 1e-6)) as torch.nn.utils.clip_grad_norm_ does. Returns the norm before clipping.
  /// A NaN or Inf in the gradients throws DivergedError naming step (counted from 1) and tensor, and changes
  /// nothing.
  double step(const ExecSpace& exec, const TrainingConfig& training, long step, const ParameterStore& store);

  const std::vector<FlatRange>& owned() const { return owned_; }
  /// What a restart needs besides the parameters: first_moment, second_moment; the owned ranges one after the
  /// other, of the second those that AdamW updates; average, empty where there is none.
  std::vector<NamedBuffer> state() const {
    return {
        {state_groups[1], first_moment_}, {state_groups[second_moment], second_moment_}, {average_group, average_}};
  }

  /// The average of parameters that no step has changed yet.
  void begin_average(const ExecSpace& exec, const ParameterStore& store);
  /// Of what this rank owns, the parameters and their average change places.
  void exchange_average(const ExecSpace& exec, const ParameterStore& store);

 private:
  /// The place of an element of an owned range among those of `ranges`.
  static long place_in(const std::vector<FlatRange>& ranges, std::size_t element);
  /// body(begin, end, their average) for each range that this rank owns, where there are averages.
  template <class Body>
  void for_each_average(const Body& body) const;
  double norm_of_gradients(const ExecSpace& exec, const ParameterStore& store);
  /// Index in the flat buffer of the first NaN or Inf on any rank, or -1.
  long first_bad_gradient(const ExecSpace& exec, const ParameterStore& store) const;

  const Communicator ranks_;
  const std::vector<FlatRange> owned_;
  const std::vector<FlatRange> by_adamw_;    ///< of them, what is not whole
  const std::vector<HiddenMatrix> by_muon_;  ///< that this rank owns
  const MuonScratch scratch_;
  MasterTensor1 first_moment_, second_moment_, average_;
  AccumulatorTensor1 norm_partials_;
  std::vector<double> leaf_squares_;  ///< of the whole buffer
};

}  // namespace dekoder
