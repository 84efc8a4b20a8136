// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "config/run_config.hpp"
#include "layers/linear.hpp"
#include "tensor/activation_arena.hpp"

namespace dekoder {

/// What the feed-forward network keeps for its backward pass.
struct FeedForwardActivations {
  StoredTensor2 hidden;     ///< (N,F) before the activation; (N,2F) gate and up of a gated one
  StoredTensor2 activated;  ///< (N,F) after it

  FeedForwardActivations(ActivationArena& arena, const std::string& name, long tokens, const ModelConfig& model);
};

/// Scratch of one backward pass, shared by all blocks; empty without one.
struct FeedForwardScratch {
  StoredTensor2 grad_hidden;     ///< (N,F) or (N,2F)
  StoredTensor2 grad_activated;  ///< (N,F) of a gated one; else grad_hidden's memory
  MasterTensor2 partials;        ///< (P,max(F or 2F,C))

  FeedForwardScratch() = default;
  FeedForwardScratch(ActivationArena& arena, long tokens, const ModelConfig& model);
};

/// Position-wise feed-forward network (Vaswani et al. 2017, section 3.3): y = down(activation(up(x))), or gated
/// (Shazeer 2020): y = down(activation(gate(x)) * up(x)), where gate and up are one product.
/// Parameters `<prefix>.up.*` (F,C), or `<prefix>.gate_up.*` (2F,C), and `<prefix>.down.*` (C,F).
struct FeedForward {
  Linear up, down;
  Activation kind;
  bool gated;

  static void declare(ParameterLayout& layout, const std::string& prefix, const ModelConfig& model,
                      InitialValues up_values, InitialValues down_values, InitialValues up_bias,
                      InitialValues down_bias);
  FeedForward(const ParameterStore& store, const std::string& prefix, const ModelConfig& model);

  /// The forward pass to the activated hidden layer, which is all that backward reads: overwrites saved.
  void activate(const ExecSpace& exec, ConstStoredTensor2 x, const FeedForwardActivations& saved) const;
  /// The rest of it: overwrites y(N,C).
  void project(const ExecSpace& exec, const FeedForwardActivations& saved, StoredTensor2 y) const;
  /// grad_x = [grad_x +] d loss/d x; parameter gradients are accumulated. grad_x may be grad_y's memory.
  void backward(const ExecSpace& exec, ConstStoredTensor2 x, const FeedForwardActivations& saved,
                ConstStoredTensor2 grad_y, const FeedForwardScratch& scratch, GradientWrite write,
                StoredTensor2 grad_x) const;
};

}  // namespace dekoder
