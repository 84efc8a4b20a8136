// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/norm_kind.hpp"
#include "kernels/column_sum.hpp"
#include "kernels/dropout.hpp"
#include "tensor/residual_tensor.hpp"
#include "tensor/shape_signature.hpp"

namespace dekoder {

/// Which norm, and the epsilon in its root.
struct NormForm {
  NormForm(Real epsilon_, NormKind kind_ = NormKind::layer) : epsilon(epsilon_), kind(kind_) {}
  Real epsilon;
  NormKind kind;
};

/// Layer normalisation of each token (Ba, Kiros, Hinton 2016, section 3):
/// y = gain * (x - mean) * rstd + bias, rstd = 1 / sqrt(variance over C + epsilon), biased variance. NormKind::rms
/// (Zhang, Sennrich 2019, section 4): the same with a mean of 0, whatever it is.
/// Overwrites y, mean, rstd; layer_norm_backward reads mean and rstd again.
inline constexpr ShapeSignature layer_norm_shapes{"layer_norm",
                                                  "x(N,C) gain(C) bias?(C) -> y(N,C) mean(N) rstd(N)"};
void layer_norm(const ExecSpace& exec, const ResidualTensor2& x, ConstMasterTensor1 gain, ConstMasterTensor1 bias,
                NormForm form, StoredTensor2 y, MasterTensor1 mean, MasterTensor1 rstd);

/// Residual connection and the norm that follows it in one pass: sum = residual + dropout(delta); y =
/// layer_norm(sum). `sum` is of the type of `residual`, and may be the same memory as it or `delta`.
/// tokens_per_sample is T: row n belongs to sequence n / T. Overwrites sum, y, mean, rstd.
inline constexpr ShapeSignature residual_layer_norm_shapes{
    "residual_layer_norm", "residual(N,C) delta(N,C) gain(C) bias?(C) -> sum(N,C) y(N,C) mean(N) rstd(N)"};
void residual_layer_norm(const ExecSpace& exec, const ResidualTensor2& residual, ConstStoredTensor2 delta,
                         ConstMasterTensor1 gain, ConstMasterTensor1 bias, NormForm form, const Dropout& dropout,
                         int tokens_per_sample, const ResidualTensor2& sum, StoredTensor2 y, MasterTensor1 mean,
                         MasterTensor1 rstd);

enum class GradientWrite { overwrite, accumulate };

/// Gradient of layer_norm. grad_x = [grad_x +] d loss/d x by `write`; grad_gain and grad_bias are accumulated;
/// partials is scratch, P = row_blocks(N). grad_x is of the type of x; it may be the same memory as grad_y when
/// write is overwrite.
inline constexpr ShapeSignature layer_norm_backward_shapes{
    "layer_norm_backward",
    "grad_y(N,C) x(N,C) gain(C) mean(N) rstd(N) -> grad_x(N,C) grad_gain(C) grad_bias?(C) partials(P,2,C)"};
void layer_norm_backward(const ExecSpace& exec, ConstStoredTensor2 grad_y, const ResidualTensor2& x,
                         ConstMasterTensor1 gain, ConstMasterTensor1 mean, ConstMasterTensor1 rstd,
                         GradientWrite write, const ResidualTensor2& grad_x, MasterTensor1 grad_gain,
                         MasterTensor1 grad_bias, MasterTensor3 partials, NormKind kind = NormKind::layer);

}  // namespace dekoder
