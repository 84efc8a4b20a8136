// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "tensor/shape_signature.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// Elements of one leaf of the fixed summation tree: results do not depend on threads.
inline constexpr int reduction_leaf = 4096;

/// Leaves of n elements: the extent that `partials` needs.
long reduction_leaves(std::size_t elements);

/// Sum of x in double: leaves of reduction_leaf elements, then their sums in ascending order. partials is scratch.
inline constexpr ShapeSignature sum_shapes{"sum", "x(N) -> partials(P)"};
double sum(const ExecSpace& exec, ConstMasterTensor1 x, AccumulatorTensor1 partials);

/// Sum of squares of x in double, as sum(). NaN or Inf anywhere in x makes the result NaN or Inf.
inline constexpr ShapeSignature sum_of_squares_shapes{"sum_of_squares", "x(N) -> partials(P)"};
double sum_of_squares(const ExecSpace& exec, ConstMasterTensor1 x, AccumulatorTensor1 partials);

/// The sum of squares of each leaf, on the host; valid until the next sum of this thread.
inline constexpr ShapeSignature leaf_sums_of_squares_shapes{"leaf_sums_of_squares", "x(N) -> partials(P)"};
std::span<const Accumulator> leaf_sums_of_squares(const ExecSpace& exec, ConstMasterTensor1 x,
                                                  AccumulatorTensor1 partials);

/// Sum in ascending order.
double sum_of_leaves(std::span<const double> leaves);

/// Index of the first NaN or Inf in x, or -1.
inline constexpr ShapeSignature first_non_finite_shapes{"first_non_finite", "x(N) -> "};
long first_non_finite(const ExecSpace& exec, ConstMasterTensor1 x);

}  // namespace dekoder
