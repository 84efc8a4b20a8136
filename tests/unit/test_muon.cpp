// SPDX-License-Identifier: Apache-2.0
#include "kernels/muon.hpp"

#include "kernels/reduction.hpp"
#include "support/host_tensor.hpp"

namespace dekoder::testing {
namespace {

using Doubles = std::vector<double>;

/// a(M,K) b(K,N)
Doubles product(const Doubles& a, const Doubles& b, std::size_t M, std::size_t K, std::size_t N) {
  Doubles c(M * N, 0.0);
  for (std::size_t m = 0; m < M; ++m)
    for (std::size_t k = 0; k < K; ++k)
      for (std::size_t n = 0; n < N; ++n) c[m * N + n] += a[m * K + k] * b[k * N + n];
  return c;
}

Doubles transposed(const Doubles& a, std::size_t rows, std::size_t columns) {
  Doubles t(a.size());
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c) t[c * rows + r] = a[r * columns + c];
  return t;
}

/// Newton and Schulz as the paper has it, without a turn of tall matrices: (X X^T)^k X = X (X^T X)^k.
Doubles orthogonalised(Doubles x, std::size_t R, std::size_t C) {
  double square = 0;
  for (const double value : x) square += value * value;
  for (double& value : x) value /= std::sqrt(square);
  for (int i = 0; i < 5; ++i) {
    const Doubles a = product(x, transposed(x, R, C), R, C, R), a_x = product(a, x, R, R, C),
                  a_a_x = product(a, a_x, R, R, C);
    for (std::size_t j = 0; j < x.size(); ++j) x[j] = 3.4445 * x[j] - 4.7750 * a_x[j] + 2.0315 * a_a_x[j];
  }
  return x;
}

struct Shape {
  int rows, columns;
};

TEST(Muon, StepsEqualTheReference) {
  const ExecSpace exec;
  for (const auto [R, C] : {Shape{1, 1}, {1, 7}, {9, 1}, {16, 16}, {24, 40}, {67, 33}, {96, 300}}) {
    SCOPED_TRACE(fmt::format("R={} C={}", R, C));
    const std::size_t N = std::size_t(R) * std::size_t(C), shorter = std::size_t(std::min(R, C));
    const auto value = random_tensor<MasterTensor2>(1, R, C), moment = filled_tensor<MasterTensor2>(0, R, C);
    const auto weight = filled_tensor<StoredTensor2>(NAN, R, C);
    const MasterTensor2 gradient("gradient", R, C);
    const AccumulatorTensor1 partials("partials", std::size_t(reduction_leaves(N)));
    const MuonScratch scratch(N + 5, shorter + 1);
    Doubles value_r = values_of(value), moment_r(N);
    MuonStep step;
    step.learning_rate = Real(0.02);
    step.weight_decay = Real(0.5);
    step.momentum = Real(0.9);
    step.gradient_scale = Real(0.25);
    for (int i = 0; i < 3; ++i) {
      Kokkos::deep_copy(gradient, random_tensor<MasterTensor2>(100 + std::uint64_t(i), R, C));
      Doubles update = values_of(gradient);
      for (std::size_t j = 0; j < N; ++j) {
        const double g = 0.25 * update[j];
        moment_r[j] = double(step.momentum) * moment_r[j] + g;
        update[j] = g + double(step.momentum) * moment_r[j];
      }
      const Doubles change = orthogonalised(update, std::size_t(R), std::size_t(C));
      for (std::size_t j = 0; j < N; ++j)
        value_r[j] = value_r[j] * (1 - 0.02 * 0.5) - 0.02 * 0.2 * std::sqrt(double(std::max(R, C))) * change[j];
      muon(exec, step, partials, scratch, gradient, value, moment, weight);
      exec.fence();
      ASSERT_TRUE(near(moment, moment_r, 1e-6)) << "moment after step " << i;
      // Roundings of small singular values grow by 3.4445 in each iteration.
      ASSERT_TRUE(near(value, value_r, 2e-5 + stored_rounding)) << "value after step " << i;
      ASSERT_TRUE(near(gradient, Doubles(N, 0.0), 0.0)) << "gradient after step " << i;
      Doubles rounded;
      for (const double x : values_of(value)) rounded.push_back(Real(Stored(Real(x))));
      ASSERT_TRUE(near(weight, rounded, 0.0)) << "weight after step " << i;
    }
  }
}

/// Of a random matrix of either form all singular values are moved to within 0.7 to 1.2, those that are not tiny.
TEST(Muon, TheUpdateIsNearlyOrthogonal) {
  const ExecSpace exec;
  for (const auto [R, C] : {Shape{32, 128}, {128, 32}}) {
    const auto gradient = random_tensor<MasterTensor2>(3, R, C);
    const auto value = filled_tensor<MasterTensor2>(0, R, C), moment = filled_tensor<MasterTensor2>(0, R, C);
    MuonStep step;
    step.learning_rate = Real(1 / (0.2 * std::sqrt(128.0)));
    muon(exec, step, AccumulatorTensor1("partials", 1), MuonScratch(32 * 128, 32), gradient, value, moment);
    exec.fence();
    Doubles o = values_of(value);
    if (R > C) o = transposed(o, std::size_t(R), std::size_t(C));
    const Doubles gram = product(o, transposed(o, 32, 128), 32, 128, 32);
    for (std::size_t i = 0; i < 32; ++i) {
      double others = 0;
      for (std::size_t j = 0; j < 32; ++j) others += j == i ? 0 : gram[i * 32 + j] * gram[i * 32 + j];
      EXPECT_GT(gram[i * 33], 0.5);
      EXPECT_LT(gram[i * 33], 1.4);
      EXPECT_LT(std::sqrt(others), 0.35);
    }
  }
}

TEST(Muon, AGradientOfZeroIsNoStep) {
  const ExecSpace exec;
  const auto value = filled_tensor<MasterTensor2>(3, 4, 6);
  muon(exec, MuonStep{Real(0.1)}, AccumulatorTensor1("partials", 1), MuonScratch(24, 4),
       MasterTensor2("gradient", 4, 6), value, MasterTensor2("moment", 4, 6));
  exec.fence();
  EXPECT_TRUE(near(value, Doubles(24, 3.0), 0.0));
}

TEST(Muon, ExtentsThatDoNotFitAreAnError) {
  const ExecSpace exec;
  const MasterTensor2 x("x", 4, 6);
  const AccumulatorTensor1 partials("partials", 1);
  EXPECT_THROW(muon(exec, {}, partials, MuonScratch(24, 4), x, x, MasterTensor2("m", 6, 4)), ShapeError);
  EXPECT_THROW(muon(exec, {}, partials, MuonScratch(23, 4), x, x, x), ShapeError);
  EXPECT_THROW(muon(exec, {}, partials, MuonScratch(24, 3), x, x, x), ShapeError);
  EXPECT_THROW(muon(exec, {}, AccumulatorTensor1("partials", 0), MuonScratch(24, 4), x, x, x), ShapeError);
}

}  // namespace
}  // namespace dekoder::testing
