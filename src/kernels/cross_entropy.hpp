// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tensor/shape_signature.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// Cross-entropy of next-token logits in nats, one chunk of M tokens: losses[m] = log sum_v exp(logits[m,v]) -
/// logits[m,target[m]], over the first `vocabulary` columns; padding columns count as -infinity.
/// Overwrites losses and, in place, logits by grad_scale * (softmax(logits) - onehot(target)), 0 in padding
/// columns.
inline constexpr ShapeSignature cross_entropy_shapes{"cross_entropy", "targets(M) -> logits(M,V) losses(M)"};
void cross_entropy(const ExecSpace& exec, ConstTokenTensor1 targets, int vocabulary, Real grad_scale,
                   StoredTensor2 logits, MasterTensor1 losses);

/// The losses alone (evaluation); logits are kept.
inline constexpr ShapeSignature cross_entropy_loss_shapes{"cross_entropy_loss",
                                                          "targets(M) logits(M,V) -> losses(M)"};
void cross_entropy_loss(const ExecSpace& exec, ConstTokenTensor1 targets, int vocabulary, ConstStoredTensor2 logits,
                        MasterTensor1 losses);

}  // namespace dekoder
