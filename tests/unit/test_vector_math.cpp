// SPDX-License-Identifier: Apache-2.0
// The fp32 polynomials against the standard library in double, in units in the last place.
#include "kernels/vector_math.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace dekoder::testing {
namespace {

/// Largest error of f over [low, high] in units in the last place of the exact result.
template <class Fast, class Exact>
double worst_ulp(Fast fast, Exact exact, double low, double high) {
  double worst = 0;
  const int count = 400000;
  for (int i = 0; i <= count; ++i) {
    const float x = float(low + (high - low) * i / count);
    const double expected = exact(double(x));
    const float rounded = std::abs(float(expected));
    const double ulp = double(std::nextafter(std::max(rounded, 1.17549435e-38f), INFINITY)) -
                       double(std::max(rounded, 1.17549435e-38f));
    worst = std::max(worst, std::abs(double(fast(x)) - expected) / ulp);
  }
  return worst;
}

TEST(VectorMath, ErrorsAreAFewUnitsInTheLastPlace) {
  const auto e = [](float x) { return fast_exp(x); };
  const auto t = [](float x) { return fast_tanh(x); };
  const auto f = [](float x) { return fast_erf(x); };
  EXPECT_LE(worst_ulp(e, [](double x) { return std::exp(x); }, -87.3, 88.7), 2.0);
  EXPECT_LE(worst_ulp(e, [](double x) { return std::exp(x); }, -1, 1), 2.0);
  EXPECT_LE(worst_ulp(t, [](double x) { return std::tanh(x); }, -12, 12), 3.0);
  EXPECT_LE(worst_ulp(t, [](double x) { return std::tanh(x); }, -1, 1), 3.0);
  EXPECT_LE(worst_ulp(f, [](double x) { return std::erf(x); }, -5, 5), 3.0);
  EXPECT_LE(worst_ulp(f, [](double x) { return std::erf(x); }, -1, 1), 3.0);
}

TEST(VectorMath, EdgesAreExact) {
  EXPECT_EQ(fast_exp(0.0f), 1.0f);
  EXPECT_EQ(fast_exp(-INFINITY), 0.0f);
  EXPECT_EQ(fast_exp(-88.0f), 0.0f);
  EXPECT_EQ(fast_exp(-1e30f), 0.0f);
  EXPECT_EQ(fast_exp(INFINITY), INFINITY);
  EXPECT_EQ(fast_exp(89.0f), INFINITY);
  EXPECT_TRUE(std::isfinite(fast_exp(88.7f)));
  EXPECT_EQ(fast_tanh(0.0f), 0.0f);
  EXPECT_EQ(fast_tanh(INFINITY), 1.0f);
  EXPECT_EQ(fast_tanh(-INFINITY), -1.0f);
  EXPECT_EQ(fast_tanh(-50.0f), -1.0f);
  EXPECT_EQ(fast_erf(0.0f), 0.0f);
  EXPECT_EQ(fast_erf(INFINITY), 1.0f);
  EXPECT_EQ(fast_erf(-INFINITY), -1.0f);
  for (const float nan : {NAN, -NAN}) {
    EXPECT_TRUE(std::isnan(fast_exp(nan)));
    EXPECT_TRUE(std::isnan(fast_tanh(nan)));
    EXPECT_TRUE(std::isnan(fast_erf(nan)));
  }
}

TEST(VectorMath, DoubleIsTheStandardFunction) {
  for (const double x : {-3.0, -0.1, 0.0, 0.7, 5.0}) {
    EXPECT_DOUBLE_EQ(fast_exp(x), std::exp(x));
    EXPECT_DOUBLE_EQ(fast_tanh(x), std::tanh(x));
    EXPECT_DOUBLE_EQ(fast_erf(x), std::erf(x));
  }
}

}  // namespace
}  // namespace dekoder::testing
