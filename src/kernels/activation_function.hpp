// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/activation.hpp"
#include "kernels/vector_math.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// Value and derivative of one activation at x, as a compile-time choice: the loop over elements has no branch.
template <Activation kind>
struct ActivationFunction {
  static constexpr Real sqrt_2_over_pi = Real(0.79788456080286535588);
  static constexpr Real sqrt_half = Real(0.70710678118654752440);
  static constexpr Real one_over_sqrt_2_pi = Real(0.39894228040143267794);
  static constexpr Real cubic = Real(0.044715);

  KOKKOS_FORCEINLINE_FUNCTION static Real logistic(Real x) {
    return Real(0.5) * (Real(1) + fast_tanh(Real(0.5) * x));
  }
  KOKKOS_FORCEINLINE_FUNCTION static Real value(Real x) {
    if constexpr (kind == Activation::relu) return x < 0 ? Real(0) : x;
    if constexpr (kind == Activation::gelu_tanh)
      return Real(0.5) * x * (Real(1) + fast_tanh(sqrt_2_over_pi * (x + cubic * x * x * x)));
    if constexpr (kind == Activation::gelu_erf) return Real(0.5) * x * (Real(1) + fast_erf(x * sqrt_half));
    if constexpr (kind == Activation::silu) return x * logistic(x);
    if constexpr (kind == Activation::relu_squared) return x < 0 ? Real(0) : x * x;
  }
  KOKKOS_FORCEINLINE_FUNCTION static Real derivative(Real x) {
    if constexpr (kind == Activation::relu) return x > 0 ? Real(1) : (x != x ? x : Real(0));
    if constexpr (kind == Activation::gelu_tanh) {
      const Real t = fast_tanh(sqrt_2_over_pi * (x + cubic * x * x * x));
      return Real(0.5) * (Real(1) + t) +
             Real(0.5) * x * (Real(1) - t * t) * sqrt_2_over_pi * (Real(1) + Real(3) * cubic * x * x);
    }
    if constexpr (kind == Activation::gelu_erf)
      return Real(0.5) * (Real(1) + fast_erf(x * sqrt_half)) +
             x * one_over_sqrt_2_pi * fast_exp(Real(-0.5) * x * x);
    if constexpr (kind == Activation::silu) {
      const Real share = logistic(x);
      return share * (Real(1) + x * (Real(1) - share));
    }
    if constexpr (kind == Activation::relu_squared) return x < 0 ? Real(0) : Real(2) * x;
  }
};

}  // namespace dekoder
