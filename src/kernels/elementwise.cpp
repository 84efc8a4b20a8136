// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise.hpp"

#include "kernels/activation_function.hpp"
#include "kernels/column_sum.hpp"
#include "kernels/rows.hpp"

namespace dekoder {

namespace {

template <Activation kind>
struct KindTag {
  static constexpr Activation value = kind;
};

/// body(KindTag) for the run-time kind.
template <class Body>
void with_activation(Activation kind, const Body& body) {
  switch (kind) {
    case Activation::relu:
      return body(KindTag<Activation::relu>());
    case Activation::gelu_tanh:
      return body(KindTag<Activation::gelu_tanh>());
    case Activation::gelu_erf:
      return body(KindTag<Activation::gelu_erf>());
    case Activation::silu:
      return body(KindTag<Activation::silu>());
    case Activation::relu_squared:
      return body(KindTag<Activation::relu_squared>());
  }
}

template <Activation kind>
void activation_kernel(const ExecSpace& exec, const ConstStoredTensor2& x, const StoredTensor2& y) {
  const int F = x.extent_int(1);
  for_each_row(
      "dekoder::activation", exec, long(x.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long n) {
        const Stored* x_row = &x(n, 0);
        Stored* y_row = &y(n, 0);
        team.each(F, [=](int f) { y_row[f] = ActivationFunction<kind>::value(x_row[f]); });
      });
}

template <Activation kind>
void activation_backward_kernel(const ExecSpace& exec, const ConstStoredTensor2& x,
                                const ConstStoredTensor2& grad_y, const StoredTensor2& grad_x,
                                const MasterTensor2& partials) {
  const long N = long(x.extent(0));
  const int F = x.extent_int(1);
  const bool with_bias = partials.size() > 0;
  for_each_row(
      "dekoder::activation_backward", exec, row_blocks(N), KOKKOS_LAMBDA(const RowTeam& team, long block) {
        Master* part = with_bias ? &partials(block, 0) : nullptr;
        if (with_bias) team.each(F, [=](int f) { part[f] = 0; });
        const long end = (block + 1) * row_block < N ? (block + 1) * row_block : N;
        for (long n = block * row_block; n < end; ++n) {
          const Stored* x_row = &x(n, 0);
          const Stored* gy = &grad_y(n, 0);
          Stored* gx = &grad_x(n, 0);
          if (with_bias)
            team.each(F, [=](int f) {
              const Real gradient = gy[f] * ActivationFunction<kind>::derivative(x_row[f]);
              gx[f] = gradient;
              part[f] += gradient;
            });
          else
            team.each(F, [=](int f) { gx[f] = gy[f] * ActivationFunction<kind>::derivative(x_row[f]); });
        }
      });
}

template <Activation kind>
void gated_activation_kernel(const ExecSpace& exec, const ConstStoredTensor2& x, const StoredTensor2& y) {
  const int F = y.extent_int(1);
  for_each_row(
      "dekoder::gated_activation", exec, long(x.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long n) {
        const Stored* gate = &x(n, 0);
        const Stored* up = &x(n, F);
        Stored* y_row = &y(n, 0);
        team.each(F, [=](int f) { y_row[f] = ActivationFunction<kind>::value(gate[f]) * up[f]; });
      });
}

template <Activation kind>
void gated_activation_backward_kernel(const ExecSpace& exec, const ConstStoredTensor2& x,
                                      const ConstStoredTensor2& grad_y, const StoredTensor2& grad_x,
                                      const MasterTensor2& partials) {
  const long N = long(x.extent(0));
  const int F = grad_y.extent_int(1);
  const bool with_bias = partials.size() > 0;
  for_each_row(
      "dekoder::gated_activation_backward", exec, row_blocks(N), KOKKOS_LAMBDA(const RowTeam& team, long block) {
        Master* part = with_bias ? &partials(block, 0) : nullptr;
        if (with_bias) team.each(2 * F, [=](int g) { part[g] = 0; });
        const long end = (block + 1) * row_block < N ? (block + 1) * row_block : N;
        for (long n = block * row_block; n < end; ++n) {
          const Stored* gate = &x(n, 0);
          const Stored* up = &x(n, F);
          const Stored* gy = &grad_y(n, 0);
          Stored* grad_gate = &grad_x(n, 0);
          Stored* grad_up = &grad_x(n, F);
          team.each(F, [=](int f) {
            grad_gate[f] = gy[f] * up[f] * ActivationFunction<kind>::derivative(gate[f]);
            grad_up[f] = gy[f] * ActivationFunction<kind>::value(gate[f]);
          });
          if (with_bias) team.each(2 * F, [=](int g) { part[g] += grad_gate[g]; });
        }
      });
}

void require_two_halves(const char* function, int both, int half) {
  if (both != 2 * half)
    throw ShapeError(fmt::format("{}: x has {} columns; expected gate and up of {} each", function, both, half));
}

}  // namespace

void gated_activation(const ExecSpace& exec, Activation kind, ConstStoredTensor2 x, StoredTensor2 y) {
  const auto extent = gated_activation_shapes.match(x, y);
  require_two_halves("gated_activation", extent['G'], extent['F']);
  with_activation(kind, [&](auto tag) { gated_activation_kernel<decltype(tag)::value>(exec, x, y); });
}

void gated_activation_backward(const ExecSpace& exec, Activation kind, ConstStoredTensor2 x,
                               ConstStoredTensor2 grad_y, StoredTensor2 grad_x, MasterTensor1 grad_bias,
                               MasterTensor2 partials) {
  const auto extent = gated_activation_backward_shapes.match(x, grad_y, grad_x, grad_bias, partials);
  require_two_halves("gated_activation_backward", extent['G'], extent['F']);
  const bool with_bias = grad_bias.size() > 0;
  const long P = row_blocks(extent['N']);
  if (with_bias) require_partials("gated_activation_backward", extent['P'], P);
  with_activation(kind, [&](auto tag) {
    gated_activation_backward_kernel<decltype(tag)::value>(exec, x, grad_y, grad_x,
                                                           with_bias ? partials : MasterTensor2());
  });
  if (with_bias) add_partials("dekoder::gated_activation_backward::bias", exec, partials, P, 0, grad_bias);
}

void activation(const ExecSpace& exec, Activation kind, ConstStoredTensor2 x, StoredTensor2 y) {
  activation_shapes.match(x, y);
  with_activation(kind, [&](auto tag) { activation_kernel<decltype(tag)::value>(exec, x, y); });
}

void activation_backward(const ExecSpace& exec, Activation kind, ConstStoredTensor2 x, ConstStoredTensor2 grad_y,
                         StoredTensor2 grad_x, MasterTensor1 grad_bias, MasterTensor2 partials) {
  const auto extent = activation_backward_shapes.match(x, grad_y, grad_x, grad_bias, partials);
  const bool with_bias = grad_bias.size() > 0;
  const long P = row_blocks(extent['N']);
  if (with_bias) require_partials("activation_backward", extent['P'], P);
  with_activation(kind, [&](auto tag) {
    activation_backward_kernel<decltype(tag)::value>(exec, x, grad_y, grad_x,
                                                     with_bias ? partials : MasterTensor2());
  });
  if (with_bias) add_partials("dekoder::activation_backward::bias", exec, partials, P, 0, grad_bias);
}

void bias_backward(const ExecSpace& exec, ConstStoredTensor2 grad_y, MasterTensor1 grad_bias,
                   MasterTensor2 partials) {
  const auto extent = bias_backward_shapes.match(grad_y, grad_bias, partials);
  const long N = extent['N'], P = row_blocks(N);
  const int F = extent['F'];
  require_partials("bias_backward", extent['P'], P);
  for_each_row(
      "dekoder::bias_backward", exec, P, KOKKOS_LAMBDA(const RowTeam& team, long block) {
        Master* part = &partials(block, 0);
        team.each(F, [=](int f) { part[f] = 0; });
        const long end = (block + 1) * row_block < N ? (block + 1) * row_block : N;
        for (long n = block * row_block; n < end; ++n) {
          const Stored* gy = &grad_y(n, 0);
          team.each(F, [=](int f) { part[f] += gy[f]; });
        }
      });
  add_partials("dekoder::bias_backward::sum", exec, partials, P, 0, grad_bias);
}

namespace {

template <class From, class To>
void dropout_kernel(const ExecSpace& exec, const From& x, const Dropout& dropout, int tokens_per_sample,
                    const To& y) {
  const int C = x.extent_int(1), T = tokens_per_sample;
  const Dropout drop = dropout;
  for_each_row(
      "dekoder::apply_dropout", exec, long(x.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long n) {
        const auto* x_row = &x(n, 0);
        auto* y_row = &y(n, 0);
        const RandomStream stream = drop.sample(int(n / T));
        const std::uint64_t first = std::uint64_t(n % T) * std::uint64_t(C);
        team.each(C, [=](int c) {
          const Real factor = drop.active() ? drop.factor(stream, first + std::uint64_t(c)) : Real(1);
          y_row[c] = x_row[c] * factor;
        });
      });
}

}  // namespace

void apply_dropout(const ExecSpace& exec, const ResidualTensor2& x, const Dropout& dropout, int tokens_per_sample,
                   const ResidualTensor2& y) {
  apply_dropout_shapes.match(x, y);
  x.visit([&](const auto& from) {
    y.visit([&](const auto& to) { dropout_kernel(exec, from, dropout, tokens_per_sample, to); });
  });
}

}  // namespace dekoder
