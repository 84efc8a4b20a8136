// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "kernels/attention/attention.hpp"
#include "kernels/attention/weights.hpp"
#include "layers/linear.hpp"
#include "tensor/activation_arena.hpp"

namespace dekoder {

/// What self-attention keeps for its backward pass.
struct AttentionActivations {
  StoredTensor2 qkv;       ///< (N,3C) = (B,T,3,H,D)
  StoredTensor2 attended;  ///< (N,C) = (B,T,H,D): the heads side by side
  MasterTensor3 lse;       ///< (B,H,T)

  AttentionActivations(ActivationArena& arena, const std::string& name, int sequences, int context, int heads,
                       int channels);
};

/// Scratch shared by all blocks; of backward passes but for `scores`, empty without them.
struct AttentionScratch {
  MasterTensor1 scores;         ///< (S) attention_score_elements(), empty on CPUs
  StoredTensor2 grad_qkv;       ///< (N,3C)
  StoredTensor2 grad_attended;  ///< (N,C)
  MasterTensor3 delta;          ///< (B,H,T)
  MasterTensor2 partials;       ///< (P,3C)

  AttentionScratch() = default;
  AttentionScratch(ActivationArena& arena, int sequences, int context, int heads, int channels,
                   bool with_gradients);
};

/// Keys and values of the tokens before `position`, for generation one token at a time.
struct CachedKeysValues {
  StoredTensor5 cache;  ///< (B,2,H,T,D)
  MasterTensor3 sums;   ///< (B,H,D) scratch
  int position;         ///< of the token at hand, below T
};

/// Causal multi-head self-attention (Vaswani et al. 2017, section 3.2): queries, keys and values from ONE linear
/// C -> 3C, softmax(q k^T / sqrt(D)) v per head, an output linear C -> C.
/// Parameters `<prefix>.qkv.*` and `<prefix>.output.*`.
struct SelfAttention {
  Linear qkv, output;
  int heads;

  static void declare(ParameterLayout& layout, const std::string& prefix, int channels, bool with_bias,
                      InitialValues qkv_values, InitialValues output_values, InitialValues bias_values);
  SelfAttention(const ParameterStore& store, const std::string& prefix, int heads, bool with_bias);

  /// y(N,C) = output(attend(qkv(x(N,C)))). Overwrites saved and y. With `cached`, x is one token per sequence (T =
  /// 1): its key and value join the cache and it attends to all of it.
  void forward(const ExecSpace& exec, ConstStoredTensor2 x, const Dropout& weight_dropout,
               const AttentionActivations& saved, const AttentionScratch& scratch, StoredTensor2 y,
               const CachedKeysValues* cached = nullptr) const;
  /// grad_x = [grad_x +] d loss/d x; parameter gradients are accumulated. grad_x may be grad_y's memory.
  void backward(const ExecSpace& exec, ConstStoredTensor2 x, const Dropout& weight_dropout,
                const AttentionActivations& saved, ConstStoredTensor2 grad_y, const AttentionScratch& scratch,
                GradientWrite write, StoredTensor2 grad_x) const;
  /// The softmax weights(P,n,n) of heads [first_head, first_head + P) among the first n tokens of one sequence,
  /// recomputed from what forward saved.
  void weights(const ExecSpace& exec, const AttentionActivations& saved, int sequence, int first_head,
               MasterTensor3 weights) const;
};

}  // namespace dekoder
