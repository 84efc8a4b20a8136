// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "config/run_config.hpp"
#include "layers/linear.hpp"
#include "tensor/activation_arena.hpp"

namespace dekoder {

/// What the feed-forward network keeps for its backward pass.
struct FeedForwardActivations {
  StoredTensor2 hidden;     ///< (N,F) before the activation
  StoredTensor2 activated;  ///< (N,F) after it

  FeedForwardActivations(ActivationArena& arena, const std::string& name, long tokens, int feed_forward);
};

/// Scratch of one backward pass, shared by all blocks; empty without one.
struct FeedForwardScratch {
  StoredTensor2 grad_hidden;  ///< (N,F)
  MasterTensor2 partials;     ///< (P,max(F,C))

  FeedForwardScratch() = default;
  FeedForwardScratch(ActivationArena& arena, long tokens, int feed_forward, int channels);
};

/// Position-wise feed-forward network (Vaswani et al. 2017, section 3.3): y = down(activation(up(x))).
/// Parameters `<prefix>.up.*` (F,C) and `<prefix>.down.*` (C,F).
struct FeedForward {
  Linear up, down;
  Activation kind;

  static void declare(ParameterLayout& layout, const std::string& prefix, int channels, int feed_forward,
                      bool with_bias, InitialValues up_values, InitialValues down_values, InitialValues up_bias,
                      InitialValues down_bias);
  FeedForward(const ParameterStore& store, const std::string& prefix, Activation kind, bool with_bias);

  /// Overwrites saved and y(N,C).
  void forward(const ExecSpace& exec, ConstStoredTensor2 x, const FeedForwardActivations& saved,
               StoredTensor2 y) const;
  /// grad_x = [grad_x +] d loss/d x; parameter gradients are accumulated. grad_x may be grad_y's memory.
  void backward(const ExecSpace& exec, ConstStoredTensor2 x, const FeedForwardActivations& saved,
                ConstStoredTensor2 grad_y, const FeedForwardScratch& scratch, GradientWrite write,
                StoredTensor2 grad_x) const;
};

}  // namespace dekoder
