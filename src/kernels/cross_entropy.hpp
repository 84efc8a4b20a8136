// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tensor/shape_signature.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// logits = cap tanh(logits / cap), cap > 0, in place: the soft cap of logits (Gemma 2, 2024, section 2). NaN and
/// Inf become NaN: a logit that is not finite stays an error.
inline constexpr ShapeSignature soft_cap_shapes{"soft_cap", " -> logits(M,V)"};
void soft_cap(const ExecSpace& exec, Real cap, StoredTensor2 logits);

/// What the loss of training is besides the cross-entropy.
struct LossTerms {
  Real z_loss = 0;    ///< coefficient of the squared normaliser (PaLM, Chowdhery et al. 2022, section 5)
  Real soft_cap = 0;  ///< the logits went through soft_cap, and their gradient goes back through it; 0: not
};

/// Cross-entropy of next-token logits in nats, one chunk of M tokens: losses[m] = log Z[m] - logits[m,target[m]]
/// with log Z[m] = log sum_v exp(logits[m,v]), over the first `vocabulary` columns; padding columns count as
/// -infinity. z_losses[m] = z_loss log^2 Z[m], where it is asked for. Overwrites these and, in place, logits by the
/// gradient of grad_scale (losses[m] + z_losses[m]), grad_scale ((1 + 2 z_loss log Z[m]) softmax(logits) -
/// onehot(target)), times 1 - (logits / soft_cap)^2 where there is one; 0 in padding columns.
inline constexpr ShapeSignature cross_entropy_shapes{"cross_entropy",
                                                     "targets(M) -> logits(M,V) losses(M) z_losses?(M)"};
void cross_entropy(const ExecSpace& exec, ConstTokenTensor1 targets, int vocabulary, Real grad_scale,
                   StoredTensor2 logits, MasterTensor1 losses, const LossTerms& terms = {},
                   MasterTensor1 z_losses = {});

/// The losses alone (evaluation); logits are kept.
inline constexpr ShapeSignature cross_entropy_loss_shapes{"cross_entropy_loss",
                                                          "targets(M) logits(M,V) -> losses(M)"};
void cross_entropy_loss(const ExecSpace& exec, ConstTokenTensor1 targets, int vocabulary, ConstStoredTensor2 logits,
                        MasterTensor1 losses);

}  // namespace dekoder
