// SPDX-License-Identifier: Apache-2.0
// The mathematics of the kernels in plain loops over double: what the kernels are compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/activation.hpp"
#include "kernels/dropout.hpp"

namespace dekoder::testing {

using Doubles = std::vector<double>;

/// Dropout's factors for `rows` rows of `columns`, `tokens_per_sample` rows to a sequence.
inline Doubles dropout_factors(const Dropout& dropout, int rows, int columns, int tokens_per_sample) {
  Doubles factor(std::size_t(rows) * columns, 1.0);
  if (!dropout.active()) return factor;
  for (int n = 0; n < rows; ++n)
    for (int c = 0; c < columns; ++c)
      factor[std::size_t(n) * columns + c] =
          dropout.factor(dropout.sample(n / tokens_per_sample),
                         std::uint64_t(n % tokens_per_sample) * std::uint64_t(columns) + std::uint64_t(c));
  return factor;
}

struct LayerNormReference {
  Doubles y, mean, rstd;
};

/// Ba, Kiros, Hinton 2016; x is (N,C), bias may be empty.
inline LayerNormReference layer_norm_reference(const Doubles& x, const Doubles& gain, const Doubles& bias,
                                               double epsilon) {
  const std::size_t C = gain.size(), N = x.size() / C;
  LayerNormReference result{Doubles(x.size()), Doubles(N), Doubles(N)};
  for (std::size_t n = 0; n < N; ++n) {
    double mean = 0, variance = 0;
    for (std::size_t c = 0; c < C; ++c) mean += x[n * C + c] / double(C);
    for (std::size_t c = 0; c < C; ++c) variance += std::pow(x[n * C + c] - mean, 2) / double(C);
    const double rstd = 1 / std::sqrt(variance + epsilon);
    for (std::size_t c = 0; c < C; ++c)
      result.y[n * C + c] = gain[c] * (x[n * C + c] - mean) * rstd + (bias.empty() ? 0.0 : bias[c]);
    result.mean[n] = mean;
    result.rstd[n] = rstd;
  }
  return result;
}

struct LayerNormGradient {
  Doubles x, gain, bias;
};

/// Through the full Jacobian d y_i / d x_j = gain_i rstd (delta_ij - 1/C - xhat_i xhat_j / C).
inline LayerNormGradient layer_norm_gradient_reference(const Doubles& grad_y, const Doubles& x, const Doubles& gain,
                                                       double epsilon) {
  const std::size_t C = gain.size(), N = x.size() / C;
  const LayerNormReference forward = layer_norm_reference(x, gain, {}, epsilon);
  LayerNormGradient result{Doubles(x.size()), Doubles(C), Doubles(C)};
  for (std::size_t n = 0; n < N; ++n) {
    Doubles normalized(C);
    for (std::size_t c = 0; c < C; ++c) normalized[c] = (x[n * C + c] - forward.mean[n]) * forward.rstd[n];
    for (std::size_t i = 0; i < C; ++i) {
      result.gain[i] += grad_y[n * C + i] * normalized[i];
      result.bias[i] += grad_y[n * C + i];
      for (std::size_t j = 0; j < C; ++j)
        result.x[n * C + j] += grad_y[n * C + i] * gain[i] * forward.rstd[n] *
                               ((i == j ? 1.0 : 0.0) - (1 + normalized[i] * normalized[j]) / double(C));
    }
  }
  return result;
}

/// ReLU, both GELUs and SiLU (Hendrycks, Gimpel 2016), ReLU squared.
inline double activation_reference(Activation kind, double x) {
  switch (kind) {
    case Activation::relu:
      return x < 0 ? 0.0 : x;
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::gelu_erf:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::relu_squared:
      return x < 0 ? 0.0 : x * x;
  }
  return NAN;
}

inline double activation_derivative_reference(Activation kind, double x) {
  switch (kind) {
    case Activation::relu:
      return x > 0 ? 1.0 : (std::isnan(x) ? x : 0.0);
    case Activation::gelu_tanh: {
      const double t = std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
    }
    case Activation::gelu_erf:
      return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
    case Activation::silu: {
      const double share = 1 / (1 + std::exp(-x));
      return share * (1 + x * (1 - share));
    }
    case Activation::relu_squared:
      return x < 0 ? 0.0 : 2 * x;
  }
  return NAN;
}

struct CrossEntropyReference {
  Doubles losses, gradient, z_losses;
};

/// Over the first `vocabulary` of V columns; the gradient is times grad_scale and 0 in the padding. Logits came
/// from cap tanh(x / cap) where cap > 0, and the gradient is that of x.
inline CrossEntropyReference cross_entropy_reference(const std::vector<int>& targets, const Doubles& logits,
                                                     std::size_t vocabulary, double grad_scale, double z = 0,
                                                     double cap = 0) {
  const std::size_t M = targets.size(), V = logits.size() / M;
  CrossEntropyReference result{Doubles(M), Doubles(logits.size()), Doubles(M)};
  for (std::size_t m = 0; m < M; ++m) {
    const double* row = &logits[m * V];
    const double largest = *std::max_element(row, row + vocabulary);
    double total = 0;
    for (std::size_t v = 0; v < vocabulary; ++v) total += std::exp(row[v] - largest);
    const std::size_t target = std::size_t(targets[m]);
    const double normaliser = largest + std::log(total);
    result.losses[m] = normaliser - row[target];
    result.z_losses[m] = z * normaliser * normaliser;
    for (std::size_t v = 0; v < vocabulary; ++v) {
      const double probability = std::exp(row[v] - largest) / total;
      const double slope = cap > 0 ? 1 - std::pow(row[v] / cap, 2) : 1;
      result.gradient[m * V + v] =
          grad_scale * slope * (probability - (v == target ? 1.0 : 0.0) + 2 * z * normaliser * probability);
    }
  }
  return result;
}

/// Column sums of x(N,F), added to `start`.
inline Doubles column_sums(const Doubles& x, Doubles start) {
  for (std::size_t i = 0; i < x.size(); ++i) start[i % start.size()] += x[i];
  return start;
}

}  // namespace dekoder::testing
