// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/activation.hpp"
#include "kernels/column_sum.hpp"
#include "kernels/dropout.hpp"
#include "tensor/residual_tensor.hpp"
#include "tensor/shape_signature.hpp"

namespace dekoder {

/// y = activation(x): ReLU; GELU (Hendrycks, Gimpel 2016) by erf or by its tanh approximation; SiLU, x / (1 +
/// exp(-x)) (same paper, section 4); ReLU squared (So et al., Primer, 2021, section 4). Overwrites y; x is
/// kept for the backward pass. (The bias is already in x: gemm adds it.)
inline constexpr ShapeSignature activation_shapes{"activation", "x(N,F) -> y(N,F)"};
void activation(const ExecSpace& exec, Activation kind, ConstStoredTensor2 x, StoredTensor2 y);

/// grad_x = grad_y * activation'(x) and, in the same pass, grad_bias += column sums of grad_x (grad_bias may be
/// empty). grad_x may be the same memory as grad_y. Overwrites grad_x and partials, P = row_blocks(N).
inline constexpr ShapeSignature activation_backward_shapes{
    "activation_backward", "x(N,F) grad_y(N,F) -> grad_x(N,F) grad_bias?(F) partials?(P,F)"};
void activation_backward(const ExecSpace& exec, Activation kind, ConstStoredTensor2 x, ConstStoredTensor2 grad_y,
                         StoredTensor2 grad_x, MasterTensor1 grad_bias, MasterTensor2 partials);

/// y = activation(gate) * up, the hidden layer of SwiGLU, GeGLU and their kin (Shazeer, GLU variants improve
/// transformer, 2020, section 2). x holds gate(N,F) in its first columns and up(N,F) in its last: G = 2 F.
/// Overwrites y. Throws ShapeError.
inline constexpr ShapeSignature gated_activation_shapes{"gated_activation", "x(N,G) -> y(N,F)"};
void gated_activation(const ExecSpace& exec, Activation kind, ConstStoredTensor2 x, StoredTensor2 y);

/// Its gradient, and grad_bias += column sums of grad_x (grad_bias may be empty). Overwrites grad_x and partials, P
/// = row_blocks(N). Throws ShapeError.
inline constexpr ShapeSignature gated_activation_backward_shapes{
    "gated_activation_backward", "x(N,G) grad_y(N,F) -> grad_x(N,G) grad_bias?(G) partials?(P,G)"};
void gated_activation_backward(const ExecSpace& exec, Activation kind, ConstStoredTensor2 x,
                               ConstStoredTensor2 grad_y, StoredTensor2 grad_x, MasterTensor1 grad_bias,
                               MasterTensor2 partials);

/// grad_bias += column sums of grad_y, by fixed blocks of rows and a fixed order. partials is scratch, P =
/// row_blocks(N).
inline constexpr ShapeSignature bias_backward_shapes{"bias_backward", "grad_y(N,F) -> grad_bias(F) partials(P,F)"};
void bias_backward(const ExecSpace& exec, ConstStoredTensor2 grad_y, MasterTensor1 grad_bias,
                   MasterTensor2 partials);

/// y = x * dropout factor, in or out of place: the gradient of dropout. Without dropout a copy, of y's type. Row n
/// belongs to sequence n / tokens_per_sample; its element index is (n % tokens_per_sample) * C + c.
inline constexpr ShapeSignature apply_dropout_shapes{"apply_dropout", "x(N,C) -> y(N,C)"};
void apply_dropout(const ExecSpace& exec, const ResidualTensor2& x, const Dropout& dropout, int tokens_per_sample,
                   const ResidualTensor2& y);

}  // namespace dekoder
