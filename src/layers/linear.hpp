// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "kernels/normalization.hpp"
#include "tensor/parameter_store.hpp"

namespace dekoder {

/// y = x W^T + b. Parameters `<prefix>.weight` (out,in) and, with biases, `<prefix>.bias` (out).
struct Linear {
  Tensor2 weight, grad_weight;
  Tensor1 bias, grad_bias;  ///< empty without biases

  /// Adds the parameters of one layer to `layout`; axes names them, e.g. "3C,C".
  static void declare(ParameterLayout& layout, const std::string& prefix, const std::string& axes, int out, int in,
                      bool with_bias, InitialValues weight_values, InitialValues bias_values);
  Linear(const ParameterStore& store, const std::string& prefix, bool with_bias);

  /// y(N,out) = x(N,in) weight^T + bias. Overwrites y.
  void forward(const ExecSpace& exec, ConstTensor2 x, Tensor2 y) const;

  /// grad_x(N,in) = [grad_x +] grad_y(N,out) weight by `write`; grad_weight += grad_y^T x. The weight gradient
  /// comes first, so that grad_x may be the same memory as x.
  void backward(const ExecSpace& exec, ConstTensor2 x, ConstTensor2 grad_y, GradientWrite write,
                Tensor2 grad_x) const;

  /// grad_bias += column sums of grad_y; nothing without biases. partials(P,out) is scratch, P = row_blocks(N).
  void backward_bias(const ExecSpace& exec, ConstTensor2 grad_y, Tensor2 partials) const;
};

}  // namespace dekoder
