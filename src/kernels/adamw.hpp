// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tensor/decay_block.hpp"
#include "tensor/shape_signature.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

struct AdamWStep {
  Real learning_rate = 0;
  Real beta1 = Real(0.9);
  Real beta2 = Real(0.95);
  Real epsilon = Real(1e-8);
  Real weight_decay = 0;
  Real gradient_scale = 1;      ///< clipping factor and mean over micro-batches
  double bias_correction1 = 1;  ///< 1 - beta1^step, step counted from 1
  double bias_correction2 = 1;
};

/// AdamW over flat buffers in one pass (Loshchilov, Hutter 2019, algorithm 2; decay times learning rate as in
/// PyTorch): g = gradient_scale * gradient; m = beta1 m + (1-beta1) g; v = beta2 v + (1-beta2) g^2; value = value
/// (1 - learning_rate weight_decay) - learning_rate (m / bc1) / (sqrt(v / bc2) + epsilon). Block i of decay_block
/// elements decays where decay[i] is 1. Updates value, first_moment, second_moment in place, sets gradient to zero
/// for the next step and, where it is given, weight to the new value.
inline constexpr ShapeSignature adamw_shapes{
    "adamw", "decay(K) -> gradient(N) value(N) first_moment(N) second_moment(N) weight?(N)"};
void adamw(const ExecSpace& exec, const AdamWStep& step, ConstByteTensor1 decay, MasterTensor1 gradient,
           MasterTensor1 value, MasterTensor1 first_moment, MasterTensor1 second_moment, StoredTensor1 weight = {});

}  // namespace dekoder
