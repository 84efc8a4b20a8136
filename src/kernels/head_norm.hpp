// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/column_sum.hpp"
#include "kernels/first_positions.hpp"
#include "tensor/shape_signature.hpp"

namespace dekoder {

/// Where rows of tokens stand, row n being token first.of(b) + n mod tokens_per_sample of sequence b, and how
/// rotary positions turn them (rotary_table); without tables they turn nothing.
struct RotaryPlace {
  ConstMasterTensor2 cosines, sines;  ///< (T,R/2) or empty
  FirstPositions first = 0;
  int tokens_per_sample = 1;
};

/// RMS norm of every head's queries and keys (Henry et al. 2020, section 2; Dehghani et al., ViT-22B, 2023, section
/// 2; with RMS norm and one gain for all heads: Qwen3, 2025, section 2), then their rotary positions (turn_heads),
/// in one pass: with x one head of qkv's row n, normed = turn(gain * x / sqrt(mean over D of x^2 + epsilon)).
/// qkv(N,W) begins with query_heads heads of queries, then come keys; normed(N,V) has these, V = (H + G) D.
/// Overwrites normed. Throws ShapeError.
inline constexpr ShapeSignature norm_heads_shapes{
    "norm_heads", "qkv(N,W) query_gain(D) key_gain(D) cosines?(T,I) sines?(T,I) -> normed(N,V)"};
void norm_heads(const ExecSpace& exec, ConstStoredTensor2 qkv, int query_heads, ConstMasterTensor1 query_gain,
                ConstMasterTensor1 key_gain, Real epsilon, const RotaryPlace& place, StoredTensor2 normed);

/// Gradient of norm_heads: the first H + G heads of grad_qkv's rows enter as d loss / d normed and become d loss /
/// d qkv; the gains' gradients are accumulated. partials is scratch, P = row_blocks(N) (H + G).
/// It reads what entered the norm, not what left it: a channel whose gain is 0 could not be recovered, and turning
/// back would spread a channel's rounding over its partner, whose gain may be far smaller. Root mean squares are
/// computed again, as the row is at hand. So nothing is kept beside qkv, and what left the norm can lie in scratch.
inline constexpr ShapeSignature norm_heads_backward_shapes{
    "norm_heads_backward",
    "qkv(N,W) query_gain(D) key_gain(D) cosines?(T,I) sines?(T,I) -> grad_qkv(N,W) grad_query_gain(D) "
    "grad_key_gain(D) partials(P,D)"};
void norm_heads_backward(const ExecSpace& exec, ConstStoredTensor2 qkv, int query_heads, int key_heads,
                         ConstMasterTensor1 query_gain, ConstMasterTensor1 key_gain, Real epsilon,
                         const RotaryPlace& place, StoredTensor2 grad_qkv, MasterTensor1 grad_query_gain,
                         MasterTensor1 grad_key_gain, MasterTensor2 partials);

}  // namespace dekoder
