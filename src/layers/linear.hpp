// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "kernels/normalization.hpp"
#include "tensor/parameter_store.hpp"

namespace dekoder {

/// y = x W^T + b. Parameters `<prefix>.weight` (out,in) and, with biases, `<prefix>.bias` (out).
struct Linear {
  ConstStoredTensor2 weight;  ///< (out,in)
  MasterTensor2 grad_weight;  ///< (out,in)
  ConstStoredTensor1 bias;    ///< (out), empty without biases
  MasterTensor1 grad_bias;    ///< (out), empty without biases

  /// Adds the parameters of one layer to `layout`; axes names them, e.g. "3C,C".
  static void declare(ParameterLayout& layout, const std::string& prefix, const std::string& axes, int out, int in,
                      bool with_bias, InitialValues weight_values, InitialValues bias_values);
  Linear(const ParameterStore& store, const std::string& prefix, bool with_bias);

  /// y(N,out) = x(N,in) weight^T + bias. Overwrites y.
  void forward(const ExecSpace& exec, ConstStoredTensor2 x, StoredTensor2 y) const;

  /// grad_x(N,in) = [grad_x +] grad_y(N,out) weight by `write`; grad_weight += grad_y^T x. The weight gradient
  /// comes first, so that grad_x may be the same memory as x.
  void backward(const ExecSpace& exec, ConstStoredTensor2 x, ConstStoredTensor2 grad_y, GradientWrite write,
                StoredTensor2 grad_x) const;

  /// grad_bias += column sums of grad_y; nothing without biases. partials(P,out) is scratch, P = row_blocks(N).
  void backward_bias(const ExecSpace& exec, ConstStoredTensor2 grad_y, MasterTensor2 partials) const;
};

}  // namespace dekoder
