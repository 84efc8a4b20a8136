// SPDX-License-Identifier: Apache-2.0
#include "layers/linear.hpp"

#include "kernels/elementwise.hpp"
#include "kernels/gemm.hpp"

namespace dekoder {

void Linear::declare(ParameterLayout& layout, const std::string& prefix, const std::string& axes, int out, int in,
                     bool with_bias, InitialValues weight_values, InitialValues bias_values) {
  layout.add(prefix + ".weight", axes, {out, in}, true, weight_values);
  if (with_bias) layout.add(prefix + ".bias", axes.substr(0, axes.find(',')), {out}, false, bias_values);
}

Linear::Linear(const ParameterStore& store, const std::string& prefix, bool with_bias)
    : weight(store.weight2(prefix + ".weight")), grad_weight(store.gradient2(prefix + ".weight")) {
  if (!with_bias) return;
  bias = store.weight1(prefix + ".bias");
  grad_bias = store.gradient1(prefix + ".bias");
}

void Linear::forward(const ExecSpace& exec, ConstStoredTensor2 x, StoredTensor2 y) const {
  gemm(exec, Op::none, Op::transpose, 1, x, weight, 0, y, bias);
}

void Linear::backward(const ExecSpace& exec, ConstStoredTensor2 x, ConstStoredTensor2 grad_y, GradientWrite write,
                      StoredTensor2 grad_x) const {
  gemm_master(exec, Op::transpose, Op::none, 1, grad_y, x, 1, grad_weight);
  gemm(exec, Op::none, Op::none, 1, grad_y, weight, write == GradientWrite::accumulate ? 1 : 0, grad_x);
}

void Linear::backward_bias(const ExecSpace& exec, ConstStoredTensor2 grad_y, MasterTensor2 partials) const {
  if (grad_bias.size() > 0) bias_backward(exec, grad_y, grad_bias, partials);
}

}  // namespace dekoder
