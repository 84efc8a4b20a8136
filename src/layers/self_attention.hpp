// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "config/run_config.hpp"
#include "kernels/attention/attention.hpp"
#include "kernels/attention/weights.hpp"
#include "kernels/head_norm.hpp"
#include "kernels/rotary.hpp"
#include "layers/linear.hpp"
#include "tensor/activation_arena.hpp"

namespace dekoder {

/// What self-attention keeps for its backward pass.
struct AttentionActivations {
  StoredTensor2 qkv;       ///< (N,(H+2G)D): queries, keys, values; with rotary positions and no QK norm turned
  StoredTensor2 attended;  ///< (N,HD) = (B,T,H,D): the heads side by side
  MasterTensor3 lse;       ///< (B,H,T)

  AttentionActivations(ActivationArena& arena, const std::string& name, int sequences, const ModelConfig& model);
};

/// Scratch shared by all blocks; of backward passes but for `scores` and `normed`, empty without them.
struct AttentionScratch {
  MasterTensor1 scores;         ///< (S) attention_score_elements(), empty on CPUs
  StoredTensor2 normed;         ///< (N,(H+G)D) queries and keys after QK norm and positions; empty without QK norm
  StoredTensor2 grad_qkv;       ///< (N,(H+2G)D)
  StoredTensor2 grad_attended;  ///< (N,HD)
  MasterTensor3 delta;          ///< (B,H,T)
  MasterTensor2 partials;       ///< (P,max((H+2G)D,C))

  AttentionScratch() = default;
  AttentionScratch(ActivationArena& arena, int sequences, const ModelConfig& model, bool with_gradients);
};

/// Keys and values of the tokens before those at hand, for generation one token at a time.
struct CachedKeysValues {
  StoredTensor5 cache;       ///< (B,2,G,T,D)
  MasterTensor3 sums;        ///< (B,H,D) scratch
  FirstPositions positions;  ///< (B) of the tokens at hand, below T
};

/// The frequency, in radians per token, of pair i of rotary positions: base^(-2i/R) (Su et al. 2021,
/// section 3.2.2). With rotary_factor above 1 the wavelengths above original context / rotary_low_frequency are
/// stretched by it, and those between that and original context / rotary_high_frequency in part (Llama 3.1: Dubey
/// et al. 2024, section 3.4.2, and the code published with it).
double rotary_frequency(const ModelConfig& model, int i);

/// Rotary positions of all blocks: (T,R/2), empty where the model has none.
struct RotaryTable {
  MasterTensor2 cosines, sines;

  explicit RotaryTable(const ModelConfig& model);
};

/// Causal self-attention (Vaswani et al. 2017, section 3.2) of H heads of queries that share G of keys and values
/// (Ainslie et al. 2023): queries, keys and values from ONE linear C -> (H+2G)D, softmax(q k^T / sqrt(D)) v per
/// head, an output linear HD -> C. Parameters `<prefix>.qkv.*` and `<prefix>.output.*`; with QK norm
/// (kernels/head_norm.hpp) `<prefix>.query_norm.gain` and `<prefix>.key_norm.gain`.
struct SelfAttention {
  Linear qkv, output;
  int heads, key_heads;
  AttentionForm form;
  RotaryTable rotary;
  ConstMasterTensor1 query_gain, key_gain;  ///< (D); empty without QK norm
  MasterTensor1 grad_query_gain, grad_key_gain;
  Real norm_epsilon;

  static void declare(ParameterLayout& layout, const std::string& prefix, const ModelConfig& model,
                      InitialValues qkv_values, InitialValues output_values, InitialValues bias_values);
  SelfAttention(const ParameterStore& store, const std::string& prefix, const ModelConfig& model,
                const RotaryTable& rotary, int layer);

  /// y(N,C) = output(attend(qkv(x(N,C)))). Overwrites saved and y. With `cached`, x is one token per sequence (T =
  /// 1): its key and value join the cache and it attends to all of it.
  void forward(const ExecSpace& exec, ConstStoredTensor2 x, const Dropout& weight_dropout,
               const AttentionActivations& saved, const AttentionScratch& scratch, StoredTensor2 y,
               const CachedKeysValues* cached = nullptr) const;
  /// grad_x = [grad_x +] d loss/d x; parameter gradients are accumulated. grad_x may be grad_y's memory.
  void backward(const ExecSpace& exec, ConstStoredTensor2 x, const Dropout& weight_dropout,
                const AttentionActivations& saved, ConstStoredTensor2 grad_y, const AttentionScratch& scratch,
                GradientWrite write, StoredTensor2 grad_x) const;
  /// The softmax weights(P,n,n) of heads [first_head, first_head + P), one or all that share keys, among the
  /// first n tokens of one sequence, recomputed from what forward saved.
  void weights(const ExecSpace& exec, const AttentionActivations& saved, const AttentionScratch& scratch,
               int sequence, int first_head, MasterTensor3 weights) const;
  /// Queries, keys and values as attention reads them, of the last forward: with QK norm in scratch, until the next
  /// block's.
  Heads attended_heads(const AttentionActivations& saved, const AttentionScratch& scratch) const;

 private:
  bool has_norm() const { return query_gain.size() > 0; }
  RotaryPlace place(const FirstPositions& first, int tokens) const {
    return {rotary.cosines, rotary.sines, first, tokens};
  }
  /// Norm, where there is one, and rotary positions, where they are, of queries and keys.
  void norm_and_turn(const ExecSpace& exec, const StoredTensor2& qkv_rows, const FirstPositions& first, int tokens,
                     const StoredTensor2& normed) const;
};

}  // namespace dekoder
