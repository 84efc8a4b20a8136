// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tensor/shape_signature.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

struct MuonStep {
  Real learning_rate = 0;
  Real momentum = Real(0.95);
  Real weight_decay = 0;
  Real gradient_scale = 1;  ///< clipping factor
};

/// Iterations of Newton and Schulz.
inline constexpr int muon_iterations = 5;

/// What muon() works in, for matrices of up to so many elements and so many on their shorter side.
struct MuonScratch {
  StoredTensor1 x, next;             ///< (elements) of the matrix
  StoredTensor1 square, polynomial;  ///< (shorter side squared)

  MuonScratch() = default;
  MuonScratch(std::size_t elements, std::size_t shorter);
};

/// Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") of one matrix: g =
/// gradient_scale * gradient; moment = momentum * moment + g; u = g + momentum * moment (Nesterov); O = u with
/// singular values near 1, by `muon_iterations` of X = (a + b A + c A^2) X with A = X X^T, from X = u / |u| on, all
/// in Stored: bf16 in bf16, as there. value = value (1 - learning_rate weight_decay) - learning_rate 0.2
/// sqrt(max(R, C)) O, whose elements are then as large as AdamW's (Liu et al. 2025, "Muon is scalable for LLM
/// training", section 2.2). Updates value and moment in place, sets gradient to zero for the next step and, where
/// it is given, weight to the new value. partials is scratch, as that of sum_of_squares for R C elements. A
/// gradient that is not finite makes the values NaN.
inline constexpr ShapeSignature muon_shapes{"muon",
                                            "partials(P) -> gradient(R,C) value(R,C) moment(R,C) weight?(R,C)"};
void muon(const ExecSpace& exec, const MuonStep& step, AccumulatorTensor1 partials, const MuonScratch& scratch,
          MasterTensor2 gradient, MasterTensor2 value, MasterTensor2 moment, StoredTensor2 weight = {});

/// FLOPs of its matrix products.
double muon_flops(double rows, double columns);

}  // namespace dekoder
