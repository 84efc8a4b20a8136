// SPDX-License-Identifier: Apache-2.0
#include "kernels/adamw.hpp"

#include "support/host_tensor.hpp"

namespace dekoder::testing {
namespace {

TEST(AdamW, TenStepsEqualTheReference) {
  const ExecSpace exec;
  for (const int blocks : {1, 3, 65, 700}) {
    SCOPED_TRACE(fmt::format("{} blocks", blocks));
    const std::size_t N = std::size_t(blocks) * decay_block;
    std::vector<int> flags;
    for (int block = 0; block < blocks; ++block) flags.push_back(block % 3 != 1);
    const auto decay = tensor_of<ByteTensor1>(flags, blocks);
    const auto value = random_tensor<MasterTensor1>(1, N), m = filled_tensor<MasterTensor1>(0, N),
               v = filled_tensor<MasterTensor1>(0, N);
    const MasterTensor1 gradient("gradient", N);
    std::vector<double> value_r = values_of(value), m_r(N), v_r(N);
    for (int step = 1; step <= 10; ++step) {
      Kokkos::deep_copy(gradient, random_tensor<MasterTensor1>(100 + std::uint64_t(step), N));
      const std::vector<double> g = values_of(gradient);
      AdamWStep s;
      s.learning_rate = Real(1e-2 / step);
      s.weight_decay = Real(0.1);
      s.gradient_scale = Real(0.25);
      s.bias_correction1 = 1 - std::pow(double(s.beta1), step);
      s.bias_correction2 = 1 - std::pow(double(s.beta2), step);
      const auto weight = filled_tensor<StoredTensor1>(NAN, N);
      adamw(exec, s, decay, gradient, value, m, v, weight);
      exec.fence();
      for (std::size_t i = 0; i < N; ++i) {
        const double scaled = 0.25 * g[i];
        m_r[i] = double(s.beta1) * m_r[i] + (1 - double(s.beta1)) * scaled;
        v_r[i] = double(s.beta2) * v_r[i] + (1 - double(s.beta2)) * scaled * scaled;
        if (flags[i / decay_block] != 0)
          value_r[i] -= double(s.learning_rate) * double(s.weight_decay) * value_r[i];
        value_r[i] -= double(s.learning_rate) * (m_r[i] / s.bias_correction1) /
                      (std::sqrt(v_r[i] / s.bias_correction2) + double(s.epsilon));
      }
      ASSERT_TRUE(near(value, value_r, 1e-6)) << "value after step " << step;
      std::vector<double> rounded;
      for (const double x : values_of(value)) rounded.push_back(Real(Stored(Real(x))));
      ASSERT_TRUE(near(weight, rounded, 0.0)) << "weight after step " << step;
      ASSERT_TRUE(near(m, m_r, 1e-6)) << "first moment after step " << step;
      ASSERT_TRUE(near(v, v_r, 1e-6)) << "second moment after step " << step;
      ASSERT_TRUE(near(gradient, std::vector<double>(N, 0.0), 0.0)) << "gradient after step " << step;
    }
  }
}

TEST(AdamW, FlagsThatDoNotCoverTheBufferAreAnError) {
  const ExecSpace exec;
  const MasterTensor1 x("x", 3 * decay_block);
  EXPECT_THROW(adamw(exec, AdamWStep{}, ByteTensor1("decay", 2), x, x, x, x), ShapeError);
  EXPECT_THROW(adamw(exec, AdamWStep{}, ByteTensor1("decay", 3), x, x, x, MasterTensor1("v", decay_block)),
               ShapeError);
  EXPECT_THROW(adamw(exec, AdamWStep{}, ByteTensor1("decay", 3), x, x, x, x, StoredTensor1("w", decay_block)),
               ShapeError);
}

TEST(AdamW, EpsilonIsAddedToTheRootOfTheCorrectedSecondMoment) {
  const ExecSpace exec;
  AdamWStep s;
  s.learning_rate = Real(1);
  s.epsilon = Real(0.5);
  s.gradient_scale = Real(1);
  s.bias_correction1 = 1 - double(s.beta1);
  s.bias_correction2 = 1 - double(s.beta2);
  for (const double g : {0.0, 0.25, -4.0}) {
    const auto value = filled_tensor<MasterTensor1>(3, decay_block),
               gradient = filled_tensor<MasterTensor1>(g, decay_block),
               m = filled_tensor<MasterTensor1>(0, decay_block), v = filled_tensor<MasterTensor1>(0, decay_block);
    adamw(exec, s, ByteTensor1("decay", 1), gradient, value, m, v);
    exec.fence();
    EXPECT_NEAR(values_of(value)[0], 3 - g / (std::abs(g) + 0.5), 1e-5)
        << "the first step from moments of zero, gradient " << g;
  }
}

}  // namespace
}  // namespace dekoder::testing
