// SPDX-License-Identifier: Apache-2.0
// Central differences through causal attention in double: every element of q, k and v.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/attention/attention.hpp"
#include "support/attention_heads.hpp"
#include "support/gradient_check.hpp"

namespace dekoder::testing {
namespace {

static_assert(sizeof(Real) == 8, "central differences need the double build");

struct Shape {
  int B, T, H, D;
  Real rate;
  int G = H;       ///< heads of keys and values
  int window = T;  ///< keys that a query sees
};

void PrintTo(const Shape& s, std::ostream* out) {
  *out << "B" << s.B << " T" << s.T << " H" << s.H << " G" << s.G << " D" << s.D << " dropout " << s.rate
       << " window " << s.window;
}

void fill(const auto& x, const RandomStream& stream) {
  change(x, [&](const auto& values) {
    for (std::size_t i = 0; i < values.size(); ++i) values.data()[i] = stream.normal(i);
  });
}

class AttentionGradient : public ::testing::TestWithParam<Shape> {};

TEST_P(AttentionGradient, EqualsCentralDifferences) {
  const auto [B, T, H, D, rate, G, window] = GetParam();
  const int all = H + 2 * G;
  const ExecSpace exec;
  const Tensor4 qkv("qkv", B, T, all, D), grad_qkv("grad_qkv", B, T, all, D);
  const Heads parts = heads_of(qkv, H, G);
  const Tensor4 out("out", B, T, H, D), grad_out("grad_out", B, T, H, D);
  const Tensor3 lse("lse", B, H, T), delta("delta", B, H, T);
  const StoredTensor1 scores = attention_scores(B, T, G);
  const Dropout dropout{rate, RandomStream(11, site_of("test.attention")), 5};
  const AttentionForm form(1 / std::sqrt(Real(D)), window);
  fill(qkv, RandomStream(1, 1));
  fill(grad_out, RandomStream(1, 2));

  // The loss is the sum of grad_out * out.
  const auto loss = [&] {
    causal_attention(exec, parts, form, dropout, out, lse, scores);
    return weighted_sum(out, grad_out);
  };
  loss();
  causal_attention_backward(exec, parts, out, grad_out, lse, form, dropout, delta, heads_of(grad_qkv, H, G),
                            scores);
  const std::vector<double> values = values_of(qkv), gradient = values_of(grad_qkv);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double numeric = central_difference(qkv, i, values[i], loss, 1e-5);
    ASSERT_NEAR(gradient[i], numeric, 1e-8 + 1e-7 * std::abs(numeric)) << "qkv" << index_text(qkv, i);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionGradient,
                         ::testing::Values(Shape{1, 1, 1, 1, 0}, Shape{2, 5, 2, 3, 0}, Shape{1, 9, 3, 8, 0},
                                           Shape{1, 37, 1, 5, 0}, Shape{1, 70, 1, 2, 0}, Shape{1, 6, 1, 17, 0},
                                           Shape{2, 9, 2, 4, 0.4}, Shape{1, 40, 1, 3, 0.2}, Shape{2, 9, 4, 3, 0, 2},
                                           Shape{1, 37, 3, 4, 0.3, 1}, Shape{1, 5, 6, 2, 0, 3},
                                           Shape{1, 259, 1, 1, 0.2}, Shape{1, 258, 2, 1, 0, 1},
                                           Shape{1, 9, 2, 3, 0, 2, 1}, Shape{2, 37, 2, 4, 0.3, 1, 11},
                                           Shape{1, 70, 1, 2, 0, 1, 35}, Shape{1, 300, 1, 1, 0, 1, 20}));

}  // namespace
}  // namespace dekoder::testing
