// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/dropout.hpp"
#include "tensor/shape_signature.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// Causal scaled-dot-product attention (Vaswani et al. 2017, section 3.2.1) without the score matrix in memory:
/// tiles with a running maximum and sum (Dao et al., FlashAttention, 2022, algorithm 1; FlashAttention-2, 2023,
/// section 3.1). out[b,t,h] = sum over s <= t of softmax_s(scale q[b,t,h] . k[b,s,h]) v[b,s,h]; q, k, v are
/// qkv[:,:,0], [:,:,1], [:,:,2]. lse[b,h,t] = log of the sum of exp(scale q.k): all that the backward pass needs.
/// dropout acts on the softmax weights, drawn at (sample of b, h, t, s). Overwrites out and lse.
inline constexpr ShapeSignature causal_attention_shapes{"causal_attention",
                                                        "qkv(B,T,3,H,D) -> out(B,T,H,D) lse(B,H,T)"};
void causal_attention(const ExecSpace& exec, ConstTensor5 qkv, Real scale, const Dropout& dropout, Tensor4 out,
                      Tensor3 lse);

/// Gradient of causal_attention (FlashAttention-2, algorithm 2): the weights are recomputed from lse.
/// delta(B,H,T) is scratch: the row sums of grad_out * out. Overwrites grad_qkv and delta.
inline constexpr ShapeSignature causal_attention_backward_shapes{
    "causal_attention_backward",
    "qkv(B,T,3,H,D) out(B,T,H,D) grad_out(B,T,H,D) lse(B,H,T) -> delta(B,H,T) grad_qkv(B,T,3,H,D)"};
void causal_attention_backward(const ExecSpace& exec, ConstTensor5 qkv, ConstTensor4 out, ConstTensor4 grad_out,
                               ConstTensor3 lse, Real scale, const Dropout& dropout, Tensor3 delta,
                               Tensor5 grad_qkv);

/// Attention of one new token per sequence against a key/value cache: appends k and v of qkv at `position`, then
/// attends to positions 0..position. cache is (B,2,H,T,D) with keys first; position < T. Overwrites out.
inline constexpr ShapeSignature cached_attention_shapes{"cached_attention",
                                                        "qkv(B,3,H,D) cache(B,2,H,T,D) -> out(B,H,D)"};
void cached_attention(const ExecSpace& exec, ConstTensor4 qkv, int position, Real scale, Tensor5 cache,
                      Tensor3 out);

}  // namespace dekoder
