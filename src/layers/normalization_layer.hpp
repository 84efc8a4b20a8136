// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "config/run_config.hpp"
#include "kernels/normalization.hpp"
#include "tensor/activation_arena.hpp"
#include "tensor/parameter_store.hpp"

namespace dekoder {

/// What one norm keeps for its backward pass: its input, its output and the statistics of each token.
struct NormActivations {
  ResidualTensor2 sum;       ///< (N,C) residual + delta: the norm's input
  StoredTensor2 y;           ///< (N,C) the norm's output
  MasterTensor1 mean, rstd;  ///< (N)

  /// `residual_as_master`: see ResidualTensor2::take.
  NormActivations(ActivationArena& arena, const std::string& name, long tokens, int channels,
                  bool residual_as_master);
};

/// The model's norm with the residual add in front of it. Parameters `<prefix>.gain` and `<prefix>.bias` (C), the
/// latter of layer normalisation with biases.
struct NormalizationLayer {
  ConstMasterTensor1 gain, bias;       ///< bias: empty without biases
  MasterTensor1 grad_gain, grad_bias;  ///< of these
  NormForm form;

  static void declare(ParameterLayout& layout, const std::string& prefix, const ModelConfig& model);
  NormalizationLayer(const ParameterStore& store, const std::string& prefix, const ModelConfig& model);

  /// y = norm(sum), where sum has been written already.
  void forward(const ExecSpace& exec, const NormActivations& saved) const;
  /// sum = residual + dropout(delta), y = norm(sum).
  void forward(const ExecSpace& exec, const ResidualTensor2& residual, ConstStoredTensor2 delta,
               const Dropout& dropout, int tokens_per_sample, const NormActivations& saved) const;
  /// grad_sum = [grad_sum +] gradient through the norm; the gradients of gain and bias are accumulated.
  void backward(const ExecSpace& exec, const NormActivations& saved, ConstStoredTensor2 grad_y, GradientWrite write,
                const ResidualTensor2& grad_sum, MasterTensor3 partials) const;
};

}  // namespace dekoder
