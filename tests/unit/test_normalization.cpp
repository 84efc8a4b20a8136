// SPDX-License-Identifier: Apache-2.0
#include "kernels/normalization.hpp"

#include "support/host_tensor.hpp"
#include "support/reference.hpp"

namespace dekoder::testing {
namespace {

constexpr double nan = NAN;
const Real epsilon = Real(1e-5);

struct Shape {
  int rows, columns;
};
const Shape shapes[] = {{1, 1}, {1, 2}, {3, 5}, {7, 16}, {65, 17}, {130, 48}, {2, 768}, {129, 33}};

/// The types that a residual stream may be of.
template <class Tensor>
class ResidualTypes : public ::testing::Test {
 protected:
  static constexpr double rounding = sizeof(typename Tensor::value_type) < sizeof(Master) ? stored_rounding : 0;
};
using BothTypes = ::testing::Types<StoredTensor2, MasterTensor2>;
TYPED_TEST_SUITE(ResidualTypes, BothTypes);

TYPED_TEST(ResidualTypes, NormEqualsReference) {
  const ExecSpace exec;
  for (const auto [N, C] : shapes)
    for (const bool with_bias : {true, false}) {
      SCOPED_TRACE(fmt::format("N={} C={} bias={}", N, C, with_bias));
      const auto x = random_tensor<TypeParam>(1, N, C);
      const auto gain = random_tensor<MasterTensor1>(2, C);
      const MasterTensor1 bias = with_bias ? random_tensor<MasterTensor1>(3, C) : MasterTensor1();
      const auto y = filled_tensor<StoredTensor2>(nan, N, C);
      const auto mean = filled_tensor<MasterTensor1>(nan, N), rstd = filled_tensor<MasterTensor1>(nan, N);
      layer_norm(exec, x, gain, bias, epsilon, y, mean, rstd);
      exec.fence();
      const auto expected =
          layer_norm_reference(values_of(x), values_of(gain), with_bias ? values_of(bias) : Doubles(), epsilon);
      EXPECT_TRUE(near(y, expected.y, 1e-5 + stored_rounding));
      EXPECT_TRUE(near(mean, expected.mean));
      EXPECT_TRUE(near(rstd, expected.rstd, 1e-5));
    }
}

TEST(LayerNorm, LargeMeanKeepsItsVariance) {
  const ExecSpace exec;
  const auto x = random_tensor<StoredTensor2>(1, 3, 100);
  change(x, [](const auto& values) {
    for (std::size_t i = 0; i < values.size(); ++i) values.data()[i] = values.data()[i] + 1000;
  });
  const auto gain = filled_tensor<MasterTensor1>(1, 100);
  const auto y = filled_tensor<StoredTensor2>(nan, 3, 100);
  const auto mean = filled_tensor<MasterTensor1>(nan, 3), rstd = filled_tensor<MasterTensor1>(nan, 3);
  layer_norm(exec, x, gain, {}, epsilon, y, mean, rstd);
  exec.fence();
  // Numbers near 1e5, as the sum becomes, are 0.008 apart: added one by one the mean may be off by some 1e-4. The
  // mean of squares minus the squared mean would be off by 0.1 and more.
  EXPECT_TRUE(near(y, layer_norm_reference(values_of(x), values_of(gain), {}, epsilon).y, 1e-3 + stored_rounding));
}

TEST(LayerNorm, NanStaysInItsRow) {
  const ExecSpace exec;
  const auto x = random_tensor<StoredTensor2>(1, 3, 20);
  set_element(x, 1 * 20 + 7, nan);
  const auto gain = filled_tensor<MasterTensor1>(1, 20);
  const auto y = filled_tensor<StoredTensor2>(0, 3, 20);
  const auto mean = filled_tensor<MasterTensor1>(0, 3), rstd = filled_tensor<MasterTensor1>(0, 3);
  layer_norm(exec, x, gain, {}, epsilon, y, mean, rstd);
  const auto got = on_host(y);
  for (int n = 0; n < 3; ++n)
    for (int c = 0; c < 20; ++c) EXPECT_EQ(std::isnan(got(n, c)), n == 1) << n << "," << c;
}

TYPED_TEST(ResidualTypes, ResidualNormEqualsReferenceInAndOutOfPlace) {
  const ExecSpace exec;
  for (const auto [N, C] : shapes)
    for (const double rate : {0.0, 0.3})
      for (const int place : {0, 1, 2}) {
        SCOPED_TRACE(fmt::format("N={} C={} rate={} place={}", N, C, rate, place));
        const int T = N % 5 == 0 ? N / 5 : N;
        const Dropout dropout{Real(rate), RandomStream(1, 2, 3), 40};
        const auto residual = random_tensor<TypeParam>(1, N, C);
        const auto delta = random_tensor<StoredTensor2>(2, N, C);
        const auto gain = random_tensor<MasterTensor1>(3, C), bias = random_tensor<MasterTensor1>(4, C);
        Doubles sum = values_of(residual);
        const Doubles added = values_of(delta), factor = dropout_factors(dropout, N, C, T);
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += added[i] * factor[i];
        if (place == 2 && !std::is_same_v<TypeParam, StoredTensor2>) continue;
        auto out = place == 1 ? residual : filled_tensor<TypeParam>(nan, N, C);
        if constexpr (std::is_same_v<TypeParam, StoredTensor2>)
          if (place == 2) out = delta;
        const auto y = filled_tensor<StoredTensor2>(nan, N, C);
        const auto mean = filled_tensor<MasterTensor1>(nan, N), rstd = filled_tensor<MasterTensor1>(nan, N);
        residual_layer_norm(exec, residual, delta, gain, bias, epsilon, dropout, T, out, y, mean, rstd);
        exec.fence();
        EXPECT_TRUE(near(out, sum, tolerance + this->rounding));
        const auto expected = layer_norm_reference(values_of(out), values_of(gain), values_of(bias), epsilon);
        EXPECT_TRUE(near(y, expected.y, 1e-5 + stored_rounding));
        EXPECT_TRUE(near(mean, expected.mean));
        EXPECT_TRUE(near(rstd, expected.rstd, 1e-5));
      }
}

TYPED_TEST(ResidualTypes, NormBackwardEqualsReference) {
  const ExecSpace exec;
  for (const auto [N, C] : shapes)
    for (const bool accumulate : {false, true})
      for (const bool with_bias : {true, false}) {
        if (C == 1) continue;  // variance 0: rstd is 1 / sqrt(epsilon) and every gradient cancels
        SCOPED_TRACE(fmt::format("N={} C={} accumulate={} bias={}", N, C, accumulate, with_bias));
        const auto x = random_tensor<TypeParam>(1, N, C);
        const auto grad_y = random_tensor<StoredTensor2>(2, N, C);
        const auto gain = random_tensor<MasterTensor1>(3, C);
        const auto mean = MasterTensor1("mean", N), rstd = MasterTensor1("rstd", N);
        const auto y = StoredTensor2("y", N, C);
        layer_norm(exec, x, gain, {}, epsilon, y, mean, rstd);
        const auto grad_x = accumulate ? random_tensor<TypeParam>(5, N, C) : filled_tensor<TypeParam>(nan, N, C);
        const Doubles before = accumulate ? values_of(grad_x) : Doubles(x.size());
        const auto grad_gain = random_tensor<MasterTensor1>(6, C);
        const MasterTensor1 grad_bias = with_bias ? random_tensor<MasterTensor1>(7, C) : MasterTensor1();
        auto expected = layer_norm_gradient_reference(values_of(grad_y), values_of(x), values_of(gain), epsilon);
        for (std::size_t i = 0; i < before.size(); ++i) expected.x[i] += before[i];
        expected.gain = column_sums(expected.gain, values_of(grad_gain));
        if (with_bias) expected.bias = column_sums(expected.bias, values_of(grad_bias));
        const auto partials = filled_tensor<MasterTensor3>(nan, row_blocks(N) + 1, 2, C);
        layer_norm_backward(exec, grad_y, x, gain, mean, rstd,
                            accumulate ? GradientWrite::accumulate : GradientWrite::overwrite, grad_x, grad_gain,
                            grad_bias, partials);
        exec.fence();
        // rstd reaches a few hundred where C = 2 draws two equal numbers
        const double bound = C == 2 ? 1e-3 : 2e-5;
        EXPECT_TRUE(near(grad_x, expected.x, bound + this->rounding));
        EXPECT_TRUE(near(grad_gain, expected.gain, bound));
        if (with_bias) {
          EXPECT_TRUE(near(grad_bias, expected.bias, bound));
        }
      }
}

TEST(LayerNormBackward, InPlaceEqualsOutOfPlace) {
  const ExecSpace exec;
  const int N = 70, C = 37;
  const auto x = random_tensor<StoredTensor2>(1, N, C), grad_y = random_tensor<StoredTensor2>(2, N, C);
  const auto gain = random_tensor<MasterTensor1>(3, C), mean = MasterTensor1("mean", N),
             rstd = MasterTensor1("rstd", N);
  const StoredTensor2 y("y", N, C), grad_x("grad_x", N, C);
  layer_norm(exec, x, gain, {}, epsilon, y, mean, rstd);
  const MasterTensor3 partials("partials", row_blocks(N), 2, C);
  const MasterTensor1 gain1("g1", C), gain2("g2", C), bias1("b1", C), bias2("b2", C);
  layer_norm_backward(exec, grad_y, x, gain, mean, rstd, GradientWrite::overwrite, grad_x, gain1, bias1, partials);
  exec.fence();
  layer_norm_backward(exec, grad_y, x, gain, mean, rstd, GradientWrite::overwrite, grad_y, gain2, bias2, partials);
  exec.fence();
  EXPECT_TRUE(identical(grad_y, grad_x));
  EXPECT_TRUE(identical(gain2, gain1));
  EXPECT_TRUE(identical(bias2, bias1));
}

TEST(LayerNormBackward, TooFewPartialsAreAnError) {
  const ExecSpace exec;
  const int N = 200, C = 4;
  const StoredTensor2 x("x", N, C);
  const MasterTensor1 gain("gain", C), mean("mean", N), rstd("rstd", N);
  const MasterTensor3 partials("partials", row_blocks(N) - 1, 2, C);
  EXPECT_THROW(layer_norm_backward(exec, x, x, gain, mean, rstd, GradientWrite::overwrite, x, gain, {}, partials),
               ShapeError);
  EXPECT_THROW(layer_norm(exec, x, mean, {}, epsilon, x, mean, rstd), ShapeError);
  const MasterTensor2 of_another_type("sum", N, C);
  const auto add = [&](const ResidualTensor2& sum) {
    residual_layer_norm(exec, x, x, gain, {}, epsilon, Dropout{}, N, sum, x, mean, rstd);
  };
  EXPECT_NO_THROW(add(x));
  if (stored_is_short) {
    EXPECT_THROW(add(of_another_type), ShapeError);
  }
}

TEST(ResidualLayerNorm, WithoutABiasIsThatOfZeros) {
  const ExecSpace exec;
  const int N = 5, C = 33;
  const auto residual = random_tensor<StoredTensor2>(1, N, C), delta = random_tensor<StoredTensor2>(2, N, C);
  const auto gain = random_tensor<MasterTensor1>(3, C), zeros = filled_tensor<MasterTensor1>(0, C);
  const auto mean = filled_tensor<MasterTensor1>(nan, N), rstd = filled_tensor<MasterTensor1>(nan, N);
  const auto sum = filled_tensor<StoredTensor2>(nan, N, C);
  const auto with = filled_tensor<StoredTensor2>(nan, N, C), without = filled_tensor<StoredTensor2>(nan, N, C);
  residual_layer_norm(exec, residual, delta, gain, zeros, epsilon, Dropout{}, N, sum, with, mean, rstd);
  residual_layer_norm(exec, residual, delta, gain, {}, epsilon, Dropout{}, N, sum, without, mean, rstd);
  exec.fence();
  EXPECT_TRUE(near(without, values_of(with)));
}

}  // namespace
}  // namespace dekoder::testing
