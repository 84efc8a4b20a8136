// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/attention/attention.hpp"
#include "tensor/shape_signature.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// The softmax weights of causal attention for one sequence, which causal_attention itself never writes to memory
/// (Vaswani et al. 2017, section 3.2.1), from what it keeps (FlashAttention-2, 2023, section 3.1):
/// weights[h,t,s] = exp(scale q[t,h] . k[s,g] - lse[h,t]) for t - window < s <= t and exactly 0 elsewhere,
/// before dropout; g = h G/H is the head of keys that head h of the queries reads. Every row sums to 1 up to
/// rounding. Heads are independent: pass one or some of them where memory for all is too much. For the first n of T
/// tokens pass the first n rows of q and k and columns of lse: causal attention of a prefix does not depend on what
/// follows. Overwrites weights. Throws ShapeError.
inline constexpr ShapeSignature attention_weights_shapes{"attention_weights",
                                                         "q(T,H,D) k(T,G,D) lse(H,T) -> weights(H,T,T)"};
void attention_weights(const ExecSpace& exec, ConstStridedTensor3 q, ConstStridedTensor3 k, ConstMasterTensor2 lse,
                       AttentionForm form, MasterTensor3 weights);

}  // namespace dekoder
