// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise.hpp"
#include "kernels/normalization.hpp"

#include "support/host_tensor.hpp"
#include "support/reference.hpp"

namespace dekoder::testing {
namespace {

constexpr Activation kinds[] = {Activation::relu, Activation::gelu_tanh, Activation::gelu_erf, Activation::silu,
                                Activation::relu_squared};

struct Shape {
  int rows, columns;
};
const Shape shapes[] = {{1, 1}, {3, 5}, {64, 16}, {65, 17}, {131, 48}, {2, 515}};

TEST(Activation, EqualsReference) {
  const ExecSpace exec;
  for (const Activation kind : kinds)
    for (const auto [N, F] : shapes) {
      SCOPED_TRACE(fmt::format("kind={} N={} F={}", int(kind), N, F));
      const auto x = random_tensor<StoredTensor2>(1, N, F);
      change(x, [](const auto& values) {
        for (std::size_t i = 0; i < values.size(); ++i) values.data()[i] = values.data()[i] * 2;
      });
      const auto y = filled_tensor<StoredTensor2>(NAN, N, F);
      activation(exec, kind, x, y);
      exec.fence();
      Doubles expected = values_of(x);
      for (double& value : expected) value = activation_reference(kind, value);
      EXPECT_TRUE(near(y, expected, 1e-6 + stored_rounding));
    }
}

TEST(Activation, NanAndInfPropagate) {
  const ExecSpace exec;
  for (const Activation kind : kinds) {
    const auto x = tensor_of<StoredTensor2>(std::vector<double>{NAN, INFINITY, 0.0, -64.0, 64.0}, 1, 5);
    const StoredTensor2 y("y", 1, 5);
    activation(exec, kind, x, y);
    exec.fence();
    EXPECT_TRUE(near(y, {NAN, INFINITY, 0.0, 0.0, kind == Activation::relu_squared ? 4096.0 : 64.0})) << int(kind);
    const auto grad_y = filled_tensor<StoredTensor2>(1, 1, 5);
    activation_backward(exec, kind, x, grad_y, y, {}, {});
    exec.fence();
    EXPECT_TRUE(std::isnan(values_of(y)[0])) << int(kind);
  }
}

TEST(ActivationBackward, EqualsReferenceInAndOutOfPlace) {
  const ExecSpace exec;
  for (const Activation kind : kinds)
    for (const auto [N, F] : shapes)
      for (const bool with_bias : {true, false})
        for (const bool in_place : {true, false}) {
          SCOPED_TRACE(fmt::format("kind={} N={} F={} bias={} in_place={}", int(kind), N, F, with_bias, in_place));
          const auto x = random_tensor<StoredTensor2>(1, N, F), grad_y = random_tensor<StoredTensor2>(2, N, F);
          const MasterTensor1 grad_bias = with_bias ? random_tensor<MasterTensor1>(3, F) : MasterTensor1();
          const MasterTensor2 partials =
              with_bias ? filled_tensor<MasterTensor2>(NAN, row_blocks(N), F) : MasterTensor2();
          Doubles expected = values_of(grad_y);
          const Doubles inputs = values_of(x);
          for (std::size_t i = 0; i < expected.size(); ++i)
            expected[i] *= activation_derivative_reference(kind, inputs[i]);
          const Doubles bias = with_bias ? column_sums(expected, values_of(grad_bias)) : Doubles();
          const auto grad_x = in_place ? grad_y : filled_tensor<StoredTensor2>(NAN, N, F);
          activation_backward(exec, kind, x, grad_y, grad_x, grad_bias, partials);
          exec.fence();
          EXPECT_TRUE(near(grad_x, expected, 2e-6 + stored_rounding));
          if (with_bias) {
            EXPECT_TRUE(near(grad_bias, bias, 1e-5));
          }
        }
}

TEST(BiasBackward, AddsColumnSums) {
  const ExecSpace exec;
  for (const auto [N, F] : shapes) {
    SCOPED_TRACE(fmt::format("N={} F={}", N, F));
    const auto grad_y = random_tensor<StoredTensor2>(1, N, F);
    const auto grad_bias = random_tensor<MasterTensor1>(2, F);
    const Doubles expected = column_sums(values_of(grad_y), values_of(grad_bias));
    const auto partials = filled_tensor<MasterTensor2>(NAN, row_blocks(N) + 2, F);
    bias_backward(exec, grad_y, grad_bias, partials);
    exec.fence();
    EXPECT_TRUE(near(grad_bias, expected, 1e-5));
  }
  const StoredTensor2 grad_y("grad_y", 65, 3);
  const MasterTensor2 partials("partials", 1, 3);
  EXPECT_THROW(bias_backward(exec, grad_y, MasterTensor1("b", 3), partials), ShapeError);
}

TEST(ApplyDropout, SameMaskForwardAndBackwardAndTheRightMean) {
  const ExecSpace exec;
  const int N = 200, T = 50, C = 129;
  const Dropout dropout{Real(0.3), RandomStream(11, site_of("blocks.00.dropout"), 5), 3};
  const auto ones = filled_tensor<StoredTensor2>(1, N, C), zero = filled_tensor<StoredTensor2>(0, N, C);
  const StoredTensor2 forward("forward", N, C), backward("backward", N, C);
  const StoredTensor2 y("y", N, C);
  const MasterTensor1 gain("gain", C), mean("mean", N), rstd("rstd", N);
  residual_layer_norm(exec, zero, ones, gain, {}, Real(1e-5), dropout, T, forward, y, mean, rstd);
  apply_dropout(exec, ones, dropout, T, backward);
  exec.fence();
  EXPECT_TRUE(identical(backward, forward));
  double sum = 0;
  std::size_t dropped = 0;
  for (const double value : values_of(forward)) {
    sum += value;
    dropped += value == 0;
    if (value != 0) {
      EXPECT_NEAR(value, 1 / 0.7, 1e-6 + 2 * stored_rounding);
    }
  }
  // Five standard deviations of the binomial share.
  const double count = N * C, deviation = std::sqrt(0.3 * 0.7 / count);
  EXPECT_NEAR(double(dropped) / count, 0.3, 5 * deviation);
  EXPECT_NEAR(sum / count, 1.0, 5 * deviation / 0.7 + stored_rounding);

  const StoredTensor2 off("off", N, C);
  apply_dropout(exec, forward, Dropout{}, T, off);
  apply_dropout(exec, backward, Dropout{}, T, backward);
  exec.fence();
  EXPECT_TRUE(identical(off, forward));
  EXPECT_TRUE(identical(backward, forward));
}

TEST(ApplyDropout, MaskDependsOnTheGlobalSampleAlone) {
  const ExecSpace exec;
  const int T = 9, C = 31;
  const RandomStream stream(1, 2, 3);
  const auto ones = filled_tensor<StoredTensor2>(1, 4 * T, C);
  const StoredTensor2 whole("whole", 4 * T, C), half("half", 2 * T, C);
  apply_dropout(exec, ones, Dropout{Real(0.5), stream, 10}, T, whole);
  apply_dropout(exec, rows(ones, 0, 2 * T), Dropout{Real(0.5), stream, 12}, T, half);
  exec.fence();
  EXPECT_TRUE(identical(half, rows(whole, 2 * T, 4 * T)));
  EXPECT_FALSE(identical(half, rows(whole, 0, 2 * T)));
}

}  // namespace
}  // namespace dekoder::testing
