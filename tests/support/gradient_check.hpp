// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "support/host_tensor.hpp"

namespace dekoder::testing {

/// Compares `analytic` = d loss / d variable with central differences (f(x+h) - f(x-h)) / 2h at every element (or
/// at about `most` of them), h = `step`; names the first element that differs. For the double build: the error of
/// the difference is of order h^2 + 1e-16 / h.
template <class Tensor>
::testing::AssertionResult gradient_matches(const std::string& name, const Tensor& variable, const Tensor& analytic,
                                            const std::function<double()>& loss, double bound = 1e-7,
                                            double step = 1e-5, std::size_t most = 400) {
  static_assert(device_is_host, "elements are changed on the host");
  if (variable.size() != analytic.size())
    return ::testing::AssertionFailure()
           << name << ": gradient of " << analytic.size() << " elements for " << variable.size();
  const std::size_t stride = std::max<std::size_t>(1, variable.size() / most);
  for (std::size_t i = 0; i < variable.size(); i += stride) {
    Real& value = variable.data()[i];
    const Real kept = value;
    value = kept + Real(step);
    const double above = loss();
    value = kept - Real(step);
    const double below = loss();
    value = kept;
    const double numeric = (above - below) / (2 * step), exact = analytic.data()[i];
    if (!(std::abs(exact - numeric) <= bound * (1 + std::abs(numeric))))
      return ::testing::AssertionFailure()
             << name << index_text(variable, i) << ": gradient " << exact << ", central difference " << numeric;
  }
  return ::testing::AssertionSuccess();
}

/// sum of weight * y: a scalar loss whose gradient with respect to y is `weight`.
template <class Tensor>
double weighted_sum(const Tensor& y, const Tensor& weight) {
  double sum = 0;
  for (std::size_t i = 0; i < y.size(); ++i) sum += double(y.data()[i]) * double(weight.data()[i]);
  return sum;
}

}  // namespace dekoder::testing
