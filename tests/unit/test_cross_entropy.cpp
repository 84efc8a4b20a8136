// SPDX-License-Identifier: Apache-2.0
#include "kernels/cross_entropy.hpp"

#include "support/host_tensor.hpp"
#include "support/reference.hpp"

namespace dekoder::testing {
namespace {

struct Shape {
  int tokens, vocabulary, padded;
};
const Shape shapes[] = {{1, 1, 1}, {1, 2, 16}, {3, 5, 8}, {7, 17, 17}, {33, 257, 320}, {2, 50257, 50304}};

std::vector<int> some_targets(int tokens, int vocabulary) {
  std::vector<int> targets;
  for (int m = 0; m < tokens; ++m) targets.push_back(m == 0 ? vocabulary - 1 : (m * 7919) % vocabulary);
  return targets;
}

TEST(CrossEntropy, EqualsReference) {
  const ExecSpace exec;
  for (const auto [M, vocabulary, V] : shapes)
    for (const double size : {1.0, 30.0}) {
      SCOPED_TRACE(fmt::format("M={} vocabulary={} V={} size={}", M, vocabulary, V, size));
      const auto targets = some_targets(M, vocabulary);
      const auto target_tensor = tensor_of<TokenTensor1>(targets, M);
      const auto logits = random_tensor<StoredTensor2>(1, M, V);
      change(logits, [&, M = M, vocabulary = vocabulary, V = V](const auto& x) {
        for (std::size_t i = 0; i < x.size(); ++i) x.data()[i] = x.data()[i] * Real(size);
        for (int m = 0; m < M; ++m)
          for (int v = vocabulary; v < V; ++v)
            x(m, v) = Stored(Real(v % 2 == 0 ? 1e30 : NAN));  // padding is never read
      });
      const double scale = 1.0 / (M + 1);
      const auto expected = cross_entropy_reference(targets, values_of(logits), std::size_t(vocabulary), scale);
      const auto losses = filled_tensor<MasterTensor1>(NAN, M), losses_alone = filled_tensor<MasterTensor1>(NAN, M);
      const auto kept = clone(logits);
      cross_entropy_loss(exec, target_tensor, vocabulary, logits, losses_alone);
      exec.fence();
      EXPECT_TRUE(identical(logits, kept));
      EXPECT_TRUE(near(losses_alone, expected.losses, 5e-6));
      cross_entropy(exec, target_tensor, vocabulary, Real(scale), logits, losses);
      exec.fence();
      EXPECT_TRUE(near(losses, expected.losses, 5e-6));
      EXPECT_TRUE(near(logits, expected.gradient, 2e-6 + stored_rounding));
    }
}

TEST(CrossEntropy, ZLossAndSoftCapEqualReference) {
  const ExecSpace exec;
  for (const auto [M, vocabulary, V] : shapes)
    for (const auto& [z, cap] : {std::pair{0.01, 0.0}, {0.0, 5.0}, {0.01, 5.0}}) {
      SCOPED_TRACE(fmt::format("M={} vocabulary={} V={} z={} cap={}", M, vocabulary, V, z, cap));
      const auto targets = some_targets(M, vocabulary);
      const auto logits = random_tensor<StoredTensor2>(1, M, V);
      change(logits, [](const auto& x) {
        for (std::size_t i = 0; i < x.size(); ++i) x.data()[i] = x.data()[i] * Real(5);
      });
      if (cap > 0) {
        std::vector<double> expected = values_of(logits);
        for (double& value : expected) value = cap * std::tanh(value / cap);
        soft_cap(exec, Real(cap), logits);
        exec.fence();
        EXPECT_TRUE(near(logits, expected, 2e-6 + stored_rounding));
      }
      const double scale = 1.0 / (M + 1);
      const auto expected =
          cross_entropy_reference(targets, values_of(logits), std::size_t(vocabulary), scale, z, cap);
      const auto losses = filled_tensor<MasterTensor1>(NAN, M), z_losses = filled_tensor<MasterTensor1>(NAN, M);
      cross_entropy(exec, tensor_of<TokenTensor1>(targets, M), vocabulary, Real(scale), logits, losses,
                    {Real(z), Real(cap)}, z_losses);
      exec.fence();
      const double sum_rounding = 1e-9 * vocabulary;  // GPUs' form on the host adds a row up one by one
      EXPECT_TRUE(near(losses, expected.losses, 5e-6 + sum_rounding));
      EXPECT_TRUE(near(z_losses, expected.z_losses, 5e-6 + sum_rounding));
      EXPECT_TRUE(near(logits, expected.gradient, 4e-6 + sum_rounding + stored_rounding));
    }
}

TEST(CrossEntropy, SoftCapKeepsWhatIsNotFiniteAnError) {
  const ExecSpace exec;
  const auto logits = tensor_of<StoredTensor2>(std::vector<double>{NAN, INFINITY, -INFINITY, 1e30, -1e30, 0}, 2, 3);
  soft_cap(exec, 30, logits);
  exec.fence();
  const std::vector<double> capped = values_of(logits);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(capped[std::size_t(i)])) << i;
  EXPECT_EQ(std::vector<double>(capped.begin() + 3, capped.end()), (std::vector<double>{30, -30, 0}));
}

TEST(CrossEntropy, GradientOfARowSumsToZero) {
  const ExecSpace exec;
  const auto logits = random_tensor<StoredTensor2>(4, 5, 1000);
  const auto losses = MasterTensor1("losses", 5);
  cross_entropy(exec, tensor_of<TokenTensor1>(some_targets(5, 1000), 5), 1000, 1, logits, losses);
  const auto gradient = on_host(logits);
  for (int m = 0; m < 5; ++m) {
    double sum = 0;
    for (int v = 0; v < 1000; ++v) sum += gradient(m, v);
    EXPECT_NEAR(sum, 0, 1e-5 + stored_rounding) << "row " << m;
  }
}

TEST(CrossEntropy, NanOrInfInALogitMakesTheLossNan) {
  const ExecSpace exec;
  for (const double bad : {NAN, INFINITY}) {
    const auto logits = random_tensor<StoredTensor2>(4, 3, 50);
    set_element(logits, 1 * 50 + 20, bad);
    const auto losses = MasterTensor1("losses", 3);
    const auto only_the_second_is_nan = [&] {
      const std::vector<double> loss = values_of(losses);
      return std::isfinite(loss[0]) && std::isnan(loss[1]) && std::isfinite(loss[2]);
    };
    const auto targets = tensor_of<TokenTensor1>(std::vector<int>{1, 2, 3}, 3);
    cross_entropy_loss(exec, targets, 50, logits, losses);
    exec.fence();
    EXPECT_TRUE(only_the_second_is_nan());
    cross_entropy(exec, targets, 50, 1, logits, losses);
    exec.fence();
    EXPECT_TRUE(only_the_second_is_nan());
    EXPECT_TRUE(std::isnan(values_of(logits)[1 * 50]));
  }
}

TEST(CrossEntropy, VocabularyOutsideTheColumnsIsAnError) {
  const ExecSpace exec;
  const StoredTensor2 logits("logits", 2, 8);
  const MasterTensor1 losses("losses", 2);
  const TokenTensor1 targets("targets", 2);
  for (const int vocabulary : {0, 9}) {
    EXPECT_THROW(cross_entropy(exec, targets, vocabulary, 1, logits, losses), ShapeError);
    EXPECT_THROW(cross_entropy_loss(exec, targets, vocabulary, logits, losses), ShapeError);
  }
}

}  // namespace
}  // namespace dekoder::testing
