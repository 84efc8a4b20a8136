// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "support/host_tensor.hpp"

namespace dekoder::testing {

/// (f(x+h) - f(x-h)) / 2h for the element of `variable` at `place`, which holds x before and after; h = `step`.
template <class Tensor>
double central_difference(const Tensor& variable, std::size_t place, double x, const std::function<double()>& loss,
                          double step) {
  set_element(variable, place, x + step);
  const double above = loss();
  set_element(variable, place, x - step);
  const double below = loss();
  set_element(variable, place, x);
  return (above - below) / (2 * step);
}

/// Compares `analytic` = d loss / d variable with central differences at every element (or
/// at about `most` of them), h = `step`; names the first element that differs. For the double build: the error of
/// the difference is of order h^2 + 1e-16 / h.
template <class Tensor>
::testing::AssertionResult gradient_matches(const std::string& name, const Tensor& variable, const Tensor& analytic,
                                            const std::function<double()>& loss, double bound = 1e-7,
                                            double step = 1e-5, std::size_t most = 400) {
  if (variable.size() != analytic.size())
    return ::testing::AssertionFailure()
           << name << ": gradient of " << analytic.size() << " elements for " << variable.size();
  const std::vector<double> values = values_of(variable), gradient = values_of(analytic);
  const std::size_t stride = std::max<std::size_t>(1, variable.size() / most);
  for (std::size_t i = 0; i < values.size(); i += stride) {
    const double numeric = central_difference(variable, i, values[i], loss, step);
    if (!(std::abs(gradient[i] - numeric) <= bound * (1 + std::abs(numeric))))
      return ::testing::AssertionFailure() << name << index_text(variable, i) << ": gradient " << gradient[i]
                                           << ", central difference " << numeric;
  }
  return ::testing::AssertionSuccess();
}

/// sum of weight * y: a scalar loss whose gradient with respect to y is `weight`.
template <class Tensor>
double weighted_sum(const Tensor& y, const Tensor& weight) {
  const auto a = on_host(y), b = on_host(weight);
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double(a.data()[i]) * double(b.data()[i]);
  return sum;
}

}  // namespace dekoder::testing
