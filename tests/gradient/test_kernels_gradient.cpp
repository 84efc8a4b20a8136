// SPDX-License-Identifier: Apache-2.0
// Central differences through every kernel that has a gradient, on the double build.
#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/embedding.hpp"
#include "kernels/head_norm.hpp"
#include "kernels/normalization.hpp"
#include "kernels/rotary.hpp"
#include "support/gradient_check.hpp"

namespace dekoder::testing {
namespace {

const Real epsilon = Real(1e-5);

TEST(KernelGradient, LayerNorm) {
  const ExecSpace exec;
  const int N = 67, C = 7;
  const auto x = random_tensor<Tensor2>(1, N, C), weight = random_tensor<Tensor2>(2, N, C);
  const auto gain = random_tensor<Tensor1>(3, C), bias = random_tensor<Tensor1>(4, C);
  const Tensor2 y("y", N, C), grad_x("grad_x", N, C);
  const Tensor1 mean("mean", N), rstd("rstd", N), grad_gain("grad_gain", C), grad_bias("grad_bias", C);
  const auto loss = [&] {
    layer_norm(exec, x, gain, bias, epsilon, y, mean, rstd);
    exec.fence();
    return weighted_sum(y, weight);
  };
  loss();
  const Tensor3 partials("partials", row_blocks(N), 2, C);
  layer_norm_backward(exec, weight, x, gain, mean, rstd, GradientWrite::overwrite, grad_x, grad_gain, grad_bias,
                      partials);
  exec.fence();
  EXPECT_TRUE(gradient_matches("x", x, grad_x, loss));
  EXPECT_TRUE(gradient_matches("gain", gain, grad_gain, loss));
  EXPECT_TRUE(gradient_matches("bias", bias, grad_bias, loss));
}

TEST(KernelGradient, RmsNorm) {
  const ExecSpace exec;
  const int N = 67, C = 7;
  const NormForm form(epsilon, NormKind::rms);
  const auto x = random_tensor<Tensor2>(1, N, C), weight = random_tensor<Tensor2>(2, N, C);
  const auto gain = random_tensor<Tensor1>(3, C);
  const Tensor2 y("y", N, C), grad_x("grad_x", N, C);
  const Tensor1 mean("mean", N), rstd("rstd", N), grad_gain("grad_gain", C);
  const auto loss = [&] {
    layer_norm(exec, x, gain, {}, form, y, mean, rstd);
    exec.fence();
    return weighted_sum(y, weight);
  };
  loss();
  layer_norm_backward(exec, weight, x, gain, mean, rstd, GradientWrite::overwrite, grad_x, grad_gain, {},
                      Tensor3("partials", row_blocks(N), 2, C), NormKind::rms);
  exec.fence();
  EXPECT_TRUE(gradient_matches("x", x, grad_x, loss));
  EXPECT_TRUE(gradient_matches("gain", gain, grad_gain, loss));
}

TEST(KernelGradient, TurnedHeads) {
  const ExecSpace exec;
  const int N = 6, T = 3, D = 8, heads = 3, W = heads * D + 5;
  const Tensor2 cosines("cosines", 7, 3), sines("sines", 7, 3);  // R = 6 of D = 8
  rotary_table(exec, [](int i) { return 1.0 / (1 + i); }, cosines, sines);
  const auto x = random_tensor<Tensor2>(1, N, W), weight = random_tensor<Tensor2>(2, N, W);
  const auto loss = [&] {
    const auto turned = clone(x);
    turn_heads(exec, turned, heads, D, cosines, sines, 4, T, Turn::forward);
    exec.fence();
    return weighted_sum(turned, weight);
  };
  const auto grad_x = clone(weight);
  turn_heads(exec, grad_x, heads, D, cosines, sines, 4, T, Turn::backward);
  exec.fence();
  EXPECT_TRUE(gradient_matches("heads", x, grad_x, loss));
}

/// Two blocks of rows; R = 6 of D = 8, and no positions; a channel with a gain of 0.
TEST(KernelGradient, NormedHeads) {
  const ExecSpace exec;
  const int N = 66, T = 33, D = 8, H = 4, G = 2, V = (H + G) * D, W = V + G * D;
  const Tensor2 cosines("cosines", T + 4, 3), sines("sines", T + 4, 3);
  rotary_table(exec, [](int i) { return 1.0 / (1 + i); }, cosines, sines);
  for (const RotaryPlace& place : {RotaryPlace{cosines, sines, 4, T}, RotaryPlace{}}) {
    const auto qkv = random_tensor<Tensor2>(1, N, W), weight = random_tensor<Tensor2>(2, N, V);
    const auto query_gain = random_tensor<Tensor1>(3, D), key_gain = random_tensor<Tensor1>(4, D);
    change(query_gain, [](const auto& values) { values(1) = 0; });
    const Tensor2 normed("normed", N, V), grad("grad", N, W), partials("partials", 2 * (H + G), D);
    const Tensor1 grad_query_gain("grad_query_gain", D), grad_key_gain("grad_key_gain", D);
    const auto loss = [&] {
      norm_heads(exec, qkv, H, query_gain, key_gain, Real(1e-2), place, normed);
      exec.fence();
      return weighted_sum(normed, weight);
    };
    const auto of_normed = on_host(weight);
    change(grad, [&](const auto& values) {  // those of values pass by: here they are none
      for (int n = 0; n < N; ++n)
        for (int v = 0; v < V; ++v) values(n, v) = of_normed(n, v);
    });
    norm_heads_backward(exec, qkv, H, G, query_gain, key_gain, Real(1e-2), place, grad, grad_query_gain,
                        grad_key_gain, partials);
    exec.fence();
    EXPECT_TRUE(gradient_matches("qkv", qkv, grad, loss));
    EXPECT_TRUE(gradient_matches("query gain", query_gain, grad_query_gain, loss));
    EXPECT_TRUE(gradient_matches("key gain", key_gain, grad_key_gain, loss));
  }
}

TEST(KernelGradient, GatedActivations) {
  const ExecSpace exec;
  const int N = 66, F = 5;
  for (const Activation kind : {Activation::relu, Activation::gelu_tanh, Activation::gelu_erf, Activation::silu,
                                Activation::relu_squared}) {
    SCOPED_TRACE(int(kind));
    const auto x = random_tensor<Tensor2>(1, N, 2 * F), weight = random_tensor<Tensor2>(2, N, F);
    const Tensor2 y("y", N, F), grad_x("grad_x", N, 2 * F), without("without", N, 2 * F);
    const Tensor1 grad_bias("grad_bias", 2 * F), sums("sums", 2 * F);
    const auto loss = [&] {
      gated_activation(exec, kind, x, y);
      exec.fence();
      return weighted_sum(y, weight);
    };
    loss();
    const Tensor2 partials("partials", row_blocks(N), 2 * F);
    gated_activation_backward(exec, kind, x, weight, grad_x, grad_bias, partials);
    gated_activation_backward(exec, kind, x, weight, without, {}, {});
    bias_backward(exec, grad_x, sums, partials);
    exec.fence();
    EXPECT_TRUE(gradient_matches("x", x, grad_x, loss));
    EXPECT_EQ(values_of(without), values_of(grad_x));
    EXPECT_TRUE(near(grad_bias, values_of(sums)));
  }
}

TEST(KernelGradient, ResidualLayerNormWithDropout) {
  const ExecSpace exec;
  const int N = 6, T = 3, C = 9;
  const Dropout dropout{Real(0.3), RandomStream(1, 2, 3), 4};
  const auto residual = random_tensor<Tensor2>(1, N, C), delta = random_tensor<Tensor2>(2, N, C);
  const auto gain = random_tensor<Tensor1>(3, C), bias = random_tensor<Tensor1>(4, C);
  const auto weight_y = random_tensor<Tensor2>(5, N, C), weight_sum = random_tensor<Tensor2>(6, N, C);
  const Tensor2 sum("sum", N, C), y("y", N, C), grad_delta("grad_delta", N, C);
  const Tensor1 mean("mean", N), rstd("rstd", N), grad_gain("grad_gain", C), grad_bias("grad_bias", C);
  // Both outputs are used, as in a block: the sum goes on as the residual stream, y into the next layer.
  const auto loss = [&] {
    residual_layer_norm(exec, residual, delta, gain, bias, epsilon, dropout, T, sum, y, mean, rstd);
    exec.fence();
    return weighted_sum(y, weight_y) + weighted_sum(sum, weight_sum);
  };
  loss();
  const auto grad_residual = clone(weight_sum);
  const Tensor3 partials("partials", row_blocks(N), 2, C);
  layer_norm_backward(exec, weight_y, sum, gain, mean, rstd, GradientWrite::accumulate, grad_residual, grad_gain,
                      grad_bias, partials);
  apply_dropout(exec, grad_residual, dropout, T, grad_delta);
  exec.fence();
  EXPECT_TRUE(gradient_matches("residual", residual, grad_residual, loss));
  EXPECT_TRUE(gradient_matches("delta", delta, grad_delta, loss));
  EXPECT_TRUE(gradient_matches("gain", gain, grad_gain, loss));
  EXPECT_TRUE(gradient_matches("bias", bias, grad_bias, loss));
}

TEST(KernelGradient, ActivationsWithBias) {
  const ExecSpace exec;
  const int N = 66, F = 5;
  for (const Activation kind : {Activation::relu, Activation::gelu_tanh, Activation::gelu_erf, Activation::silu,
                                Activation::relu_squared}) {
    SCOPED_TRACE(int(kind));
    const auto x = random_tensor<Tensor2>(1, N, F), weight = random_tensor<Tensor2>(2, N, F);
    const auto bias = random_tensor<Tensor1>(3, F);
    const Tensor2 shifted("shifted", N, F), y("y", N, F), grad_x("grad_x", N, F);
    const auto loss = [&] {
      const auto unshifted = on_host(x);
      const auto added = on_host(bias);
      change(shifted, [&](const auto& sums) {
        for (int n = 0; n < N; ++n)
          for (int f = 0; f < F; ++f) sums(n, f) = unshifted(n, f) + added(f);
      });
      activation(exec, kind, shifted, y);
      exec.fence();
      return weighted_sum(y, weight);
    };
    loss();
    const Tensor1 grad_bias("grad_bias", F);
    activation_backward(exec, kind, shifted, weight, grad_x, grad_bias, Tensor2("partials", row_blocks(N), F));
    exec.fence();
    EXPECT_TRUE(gradient_matches("x", x, grad_x, loss));
    EXPECT_TRUE(gradient_matches("bias", bias, grad_bias, loss));
    const Tensor1 alone("alone", F);
    bias_backward(exec, grad_x, alone, Tensor2("partials", row_blocks(N), F));
    exec.fence();
    EXPECT_TRUE(near(alone, values_of(grad_bias)));
  }
}

TEST(KernelGradient, CrossEntropyWithPadding) {
  const ExecSpace exec;
  const int M = 5, vocabulary = 13, V = 16;
  const auto logits = random_tensor<Tensor2>(1, M, V);
  const auto targets = tensor_of<TokenTensor1>(std::vector<int>{0, 12, 5, 5, 7}, M);
  const Tensor1 losses("losses", M);
  const double scale = 0.37;
  const auto loss = [&] {
    cross_entropy_loss(exec, targets, vocabulary, logits, losses);
    exec.fence();
    double total = 0;
    for (const double of_token : values_of(losses)) total += scale * of_token;
    return total;
  };
  const auto gradient = clone(logits);
  cross_entropy(exec, targets, vocabulary, Real(scale), gradient, losses);
  exec.fence();
  EXPECT_TRUE(gradient_matches("logits", logits, gradient, loss));
}

TEST(KernelGradient, SoftCapCrossEntropyAndZLoss) {
  const ExecSpace exec;
  const int M = 5, vocabulary = 13, V = 16;
  const auto logits = random_tensor<Tensor2>(1, M, V);
  const auto targets = tensor_of<TokenTensor1>(std::vector<int>{0, 12, 5, 5, 7}, M);
  const Tensor1 losses("losses", M), z_losses("z_losses", M);
  const double scale = 0.37;
  for (const LossTerms terms :
       {LossTerms{Real(0.02), 0}, LossTerms{0, Real(1.5)}, LossTerms{Real(0.02), Real(1.5)}}) {
    SCOPED_TRACE(fmt::format("z_loss={} soft_cap={}", terms.z_loss, terms.soft_cap));
    Tensor2 gradient;
    const auto loss = [&] {
      gradient = clone(logits);
      if (terms.soft_cap > 0) soft_cap(exec, terms.soft_cap, gradient);
      cross_entropy(exec, targets, vocabulary, Real(scale), gradient, losses, terms, z_losses);
      exec.fence();
      double total = 0;
      for (const Tensor1& of_tokens : {losses, z_losses})
        for (const double of_token : values_of(of_tokens)) total += scale * of_token;
      return total;
    };
    loss();
    const auto analytic = clone(gradient);
    EXPECT_TRUE(gradient_matches("logits", logits, analytic, loss));
  }
}

TEST(KernelGradient, EmbeddingAndPositionsWithDropout) {
  const ExecSpace exec;
  const int B = 3, T = 4, N = B * T, C = 6, V = 5, S = 6;
  for (const double rate : {0.0, 0.3}) {
    SCOPED_TRACE(rate);
    const Dropout dropout{Real(rate), RandomStream(1, 2, 3), 4};
    const auto tokens = tensor_of<TokenTensor2>(std::vector<int>{0, 1, 1, 4, 4, 4, 1, 0, 2, 1, 1, 1}, B, T);
    const auto table = random_tensor<Tensor2>(1, V, C), positions = random_tensor<Tensor2>(2, S, C);
    const auto weight = random_tensor<Tensor2>(3, N, C);
    const Tensor2 x("x", N, C), grad_x("grad_x", N, C), grad_table("grad_table", V, C), grad_positions("gp", S, C);
    const auto loss = [&] {
      embedding(exec, tokens, table, positions, 0, dropout, x);
      exec.fence();
      return weighted_sum(x, weight);
    };
    apply_dropout(exec, weight, dropout, T, grad_x);
    embedding_backward(exec, tokens, grad_x, grad_table, IntTensor1("begin", V + 1), IntTensor1("tokens", N),
                       IntTensor1("merged", token_sort_elements(N)));
    position_backward(exec, grad_x, T, grad_positions);
    exec.fence();
    EXPECT_TRUE(gradient_matches("table", table, grad_table, loss));
    EXPECT_TRUE(gradient_matches("positions", positions, grad_positions, loss));
  }
}

}  // namespace
}  // namespace dekoder::testing
