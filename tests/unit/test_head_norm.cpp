// SPDX-License-Identifier: Apache-2.0
#include "kernels/head_norm.hpp"

#include "kernels/rotary.hpp"
#include "support/host_tensor.hpp"
#include "support/reference.hpp"

namespace dekoder::testing {
namespace {

constexpr double nan = NAN;
const Real epsilon = Real(1e-3);

struct Shape {
  int rows, query_heads, key_heads, head_size, half;  ///< half: of the turned channels
};
const Shape shapes[] = {
    {1, 1, 1, 1, 0}, {3, 2, 1, 6, 3}, {7, 4, 2, 64, 32}, {66, 3, 3, 17, 5}, {130, 1, 1, 128, 0}};

TEST(HeadNorm, EqualsReference) {
  const ExecSpace exec;
  for (const auto [N, H, G, D, half] : shapes) {
    SCOPED_TRACE(fmt::format("N={} H={} G={} D={} R={}", N, H, G, D, 2 * half));
    const int T = N > 5 ? N / 2 : N, first = 4;
    MasterTensor2 cosines, sines;
    if (half > 0) {
      cosines = MasterTensor2("cosines", T + first, half), sines = MasterTensor2("sines", T + first, half);
      rotary_table(exec, [](int i) { return 0.7 / (1 + i); }, cosines, sines);
    }
    const auto qkv = random_tensor<StoredTensor2>(1, N, (H + 2 * G) * D);
    const auto query_gain = random_tensor<MasterTensor1>(2, D), key_gain = random_tensor<MasterTensor1>(3, D);
    const auto normed = filled_tensor<StoredTensor2>(nan, N, (H + G) * D);
    const std::vector<double> before = values_of(qkv);
    norm_heads(exec, qkv, H, query_gain, key_gain, epsilon, {cosines, sines, first, T}, normed);
    exec.fence();
    EXPECT_EQ(values_of(qkv), before);
    std::vector<double> expected;
    const std::vector<double> gains[] = {values_of(query_gain), values_of(key_gain)};
    for (int n = 0; n < N; ++n)
      for (int h = 0; h < H + G; ++h) {
        const double* x = &before[std::size_t(n) * (H + 2 * G) * D + h * D];
        double squares = 0;
        for (int d = 0; d < D; ++d) squares += x[d] * x[d];
        std::vector<double> y;
        for (int d = 0; d < D; ++d) y.push_back(gains[h >= H][d] * x[d] / std::sqrt(squares / D + double(epsilon)));
        for (int i = 0; i < half; ++i) {
          const double angle = (first + n % T) * 0.7 / (1 + i), a = y[i], b = y[half + i];
          y[i] = a * std::cos(angle) - b * std::sin(angle);
          y[half + i] = b * std::cos(angle) + a * std::sin(angle);
        }
        expected.insert(expected.end(), y.begin(), y.end());
      }
    EXPECT_TRUE(near(normed, expected, 1e-5 + 4 * stored_rounding));
  }
}

TEST(HeadNorm, TensorsThatDoNotFitAreRefused) {
  const ExecSpace exec;
  const int N = 6, H = 2, G = 1, D = 4;
  const StoredTensor2 qkv("qkv", N, (H + 2 * G) * D), normed("normed", N, (H + G) * D),
      grad("grad", N, (H + 2 * G) * D);
  const MasterTensor1 gain("gain", D), grad_gain("grad_gain", D);
  const MasterTensor2 table("table", 8, 2), wide("wide", 8, 3), partials("partials", H + G, D);
  const auto forward = [&](int heads, const RotaryPlace& place, const StoredTensor2& to) {
    norm_heads(exec, qkv, heads, gain, gain, epsilon, place, to);
  };
  EXPECT_THROW(forward(H + G, {table, table, 0, 3}, normed), ShapeError) << "no keys";
  EXPECT_THROW(forward(0, {table, table, 0, 3}, normed), ShapeError) << "no queries";
  EXPECT_THROW(forward(H, {wide, wide, 0, 3}, normed), ShapeError) << "6 of 4 channels turned";
  EXPECT_THROW(forward(H, {table, table, 6, 3}, normed), ShapeError) << "position 8 of a table of 8";
  EXPECT_THROW(forward(H, {table, table, -1, 3}, normed), ShapeError);
  EXPECT_THROW(forward(H, {table, table, 0, 0}, normed), ShapeError);
  EXPECT_THROW(forward(H, {table, MasterTensor2(), 0, 3}, normed), ShapeError) << "cosines without sines";
  EXPECT_THROW(forward(H, {}, StoredTensor2("odd", N, 7)), ShapeError) << "no whole number of heads";
  EXPECT_THROW(forward(H, {}, StoredTensor2("wide", N, 5 * D)), ShapeError) << "more heads than there are";
  EXPECT_NO_THROW(forward(H, {table, table, 5, 3}, normed));
  const auto backward = [&](int heads, const MasterTensor2& scratch) {
    norm_heads_backward(exec, qkv, heads, G, gain, gain, epsilon, {}, grad, grad_gain, grad_gain, scratch);
  };
  EXPECT_THROW(backward(H, MasterTensor2("few", H + G - 1, D)), ShapeError);
  EXPECT_THROW(backward(H + 2, partials), ShapeError);
  EXPECT_NO_THROW(backward(H, partials));
  exec.fence();
}

}  // namespace
}  // namespace dekoder::testing
