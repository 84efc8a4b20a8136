// SPDX-License-Identifier: Apache-2.0
// Which tensor of a step was the first that was not finite: what goes into a black box, and what `replay` looks
// for.
#pragma once

#include <string>
#include <vector>

#include "data/data_mixture.hpp"
#include "io/run/black_box.hpp"
#include "io/run/checkpoint.hpp"
#include "train/training_model.hpp"

namespace dekoder {

/// The batch of the step that follows `state`, on all ranks together, read once more. `losses`: of its
/// micro-batches.
BlackBox black_box_of_step(const RunConfig& config, const DataMixture& data, const CheckpointInfo& state,
                           const std::vector<double>& losses, const std::string& reason, int ranks);

/// Computes the step of a black box again, the micro-batches one after the other on this rank alone, from the
/// parameters in `model`: what is in the parameters, then in the tensors of one micro-batch in the order in which
/// forward and backward write them. That is the first micro-batch with a tensor that is not finite, or the last one
/// of the step. Leaves the gradients zero.
std::vector<TensorHealth> trace_step(const ExecSpace& exec, TrainingModel& model, const BlackBox& box);

/// Calls compute(dropout) with each micro-batch of a black box, loaded.
void for_each_micro_batch(const ExecSpace& exec, TrainingModel& model, const BlackBox& box,
                          const std::function<bool(long micro, const DropoutKey&)>& compute);

/// Whether the step was computed once more without a bad tensor, so that what computed it before is to be
/// suspected.
bool all_finite(const BlackBox& box);

/// "first bad tensor: blocks.01.attention.qkv (linear C -> 3C), micro-batch 3 of rank 1: 4 NaN and 0 Inf ..."; that
/// all is finite, where it is.
std::string first_bad_tensor_text(const BlackBox& box);

}  // namespace dekoder
