// SPDX-License-Identifier: Apache-2.0
#include "kernels/normalization.hpp"

#include "kernels/column_sum.hpp"
#include "kernels/rows.hpp"

namespace dekoder {

namespace {

/// Statistics of one row and its normalised, scaled and shifted copy.
template <NormKind kind, class Residual>
KOKKOS_FORCEINLINE_FUNCTION void normalize_row(const RowTeam& team, const Residual* x, const Master* gain,
                                               const Master* bias, Real epsilon, int C, Stored* y, Master* mean_out,
                                               Master* rstd_out) {
  Real mean = 0;
  if constexpr (kind == NormKind::layer) mean = team.sum(C, [=](int c) { return x[c]; }) / Real(C);
  const Real variance = team.sum(C, [=](int c) { return (x[c] - mean) * (x[c] - mean); }) / Real(C);
  const Real rstd = Real(1) / Kokkos::sqrt(variance + epsilon);
  if (bias != nullptr)
    team.each(C, [=](int c) { y[c] = gain[c] * ((x[c] - mean) * rstd) + bias[c]; });
  else
    team.each(C, [=](int c) { y[c] = gain[c] * ((x[c] - mean) * rstd); });
  team.once([=] {
    *mean_out = mean;
    *rstd_out = rstd;
  });
}

// The passes by norm and by the type of the residual stream.

template <NormKind kind>
struct NormTag {
  static constexpr NormKind value = kind;
};

/// body(NormTag) for the run-time kind.
template <class Body>
void with_norm(NormKind kind, const Body& body) {
  if (kind == NormKind::rms) return body(NormTag<NormKind::rms>());
  body(NormTag<NormKind::layer>());
}

template <NormKind kind, class ResidualTensor>
void norm_kernel(const ExecSpace& exec, const ResidualTensor& x, const ConstMasterTensor1& gain,
                 const ConstMasterTensor1& bias, Real epsilon, const StoredTensor2& y, const MasterTensor1& mean,
                 const MasterTensor1& rstd) {
  const int C = y.extent_int(1);
  for_each_row(
      "dekoder::layer_norm", exec, long(y.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long n) {
        normalize_row<kind>(team, &x(n, 0), gain.data(), bias.data(), epsilon, C, &y(n, 0), &mean(n), &rstd(n));
      });
}

template <NormKind kind, class ResidualTensor>
void residual_norm_kernel(const ExecSpace& exec, const ResidualTensor& residual, const ConstStoredTensor2& delta,
                          const ConstMasterTensor1& gain, const ConstMasterTensor1& bias, Real epsilon,
                          const Dropout& dropout, int tokens_per_sample, const ResidualTensor& sum,
                          const StoredTensor2& y, const MasterTensor1& mean, const MasterTensor1& rstd) {
  using Residual = typename ResidualTensor::value_type;
  const int C = y.extent_int(1), T = tokens_per_sample;
  const Dropout drop = dropout;
  for_each_row(
      "dekoder::residual_layer_norm", exec, long(y.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long n) {
        const Residual* residual_row = &residual(n, 0);
        const Stored* delta_row = &delta(n, 0);
        Residual* sum_row = &sum(n, 0);
        if (drop.active()) {
          const RandomStream stream = drop.sample(int(n / T));
          const std::uint64_t first = std::uint64_t(n % T) * std::uint64_t(C);
          team.each(C, [=](int c) {
            sum_row[c] = residual_row[c] + delta_row[c] * drop.factor(stream, first + std::uint64_t(c));
          });
        } else {
          team.each(C, [=](int c) { sum_row[c] = residual_row[c] + delta_row[c]; });
        }
        normalize_row<kind>(team, sum_row, gain.data(), bias.data(), epsilon, C, &y(n, 0), &mean(n), &rstd(n));
      });
}

template <NormKind kind, class ResidualTensor>
void norm_backward_kernel(const ExecSpace& exec, const ConstStoredTensor2& grad_y, const ResidualTensor& x,
                          const ConstMasterTensor1& gain, const ConstMasterTensor1& mean,
                          const ConstMasterTensor1& rstd, GradientWrite write, const ResidualTensor& grad_x,
                          const MasterTensor3& partials) {
  using Residual = typename ResidualTensor::value_type;
  const long N = long(grad_y.extent(0));
  const int C = grad_y.extent_int(1);
  const Real keep = write == GradientWrite::accumulate ? Real(1) : Real(0);
  for_each_row(
      "dekoder::layer_norm_backward", exec, row_blocks(N), KOKKOS_LAMBDA(const RowTeam& team, long block) {
        Master* gain_part = &partials(block, 0, 0);
        Master* bias_part = &partials(block, 1, 0);
        const Master* gain_row = gain.data();
        team.each(C, [=](int c) { gain_part[c] = bias_part[c] = 0; });
        const long end = (block + 1) * row_block < N ? (block + 1) * row_block : N;
        for (long n = block * row_block; n < end; ++n) {
          const Stored* gy = &grad_y(n, 0);
          const Residual* x_row = &x(n, 0);
          Residual* gx = &grad_x(n, 0);
          const Real m = mean(n), r = rstd(n);
          Real mean_g = 0;  // through the mean
          if constexpr (kind == NormKind::layer)
            mean_g = team.sum(C, [=](int c) { return gy[c] * gain_row[c]; }) / Real(C);
          const Real mean_gx =
              team.sum(C, [=](int c) { return gy[c] * gain_row[c] * ((x_row[c] - m) * r); }) / Real(C);
          team.each(C, [=](int c) {
            const Real normalized = (x_row[c] - m) * r, g = gy[c];
            gain_part[c] += g * normalized;
            bias_part[c] += g;
            const Real gradient = r * (g * gain_row[c] - mean_g - normalized * mean_gx);
            gx[c] = keep != 0 ? gx[c] + gradient : gradient;
          });
        }
      });
}

}  // namespace

void layer_norm(const ExecSpace& exec, const ResidualTensor2& x, ConstMasterTensor1 gain, ConstMasterTensor1 bias,
                NormForm form, StoredTensor2 y, MasterTensor1 mean, MasterTensor1 rstd) {
  layer_norm_shapes.match(x, gain, bias, y, mean, rstd);
  with_norm(form.kind, [&](auto tag) {
    x.visit([&](const auto& tensor) {
      norm_kernel<decltype(tag)::value>(exec, tensor, gain, bias, form.epsilon, y, mean, rstd);
    });
  });
}

void residual_layer_norm(const ExecSpace& exec, const ResidualTensor2& residual, ConstStoredTensor2 delta,
                         ConstMasterTensor1 gain, ConstMasterTensor1 bias, NormForm form, const Dropout& dropout,
                         int tokens_per_sample, const ResidualTensor2& sum, StoredTensor2 y, MasterTensor1 mean,
                         MasterTensor1 rstd) {
  residual_layer_norm_shapes.match(residual, delta, gain, bias, sum, y, mean, rstd);
  with_norm(form.kind, [&](auto tag) {
    residual.visit_with(sum, [&](const auto& from, const auto& to) {
      residual_norm_kernel<decltype(tag)::value>(exec, from, delta, gain, bias, form.epsilon, dropout,
                                                 tokens_per_sample, to, y, mean, rstd);
    });
  });
}

void layer_norm_backward(const ExecSpace& exec, ConstStoredTensor2 grad_y, const ResidualTensor2& x,
                         ConstMasterTensor1 gain, ConstMasterTensor1 mean, ConstMasterTensor1 rstd,
                         GradientWrite write, const ResidualTensor2& grad_x, MasterTensor1 grad_gain,
                         MasterTensor1 grad_bias, MasterTensor3 partials, NormKind kind) {
  const auto extent =
      layer_norm_backward_shapes.match(grad_y, x, gain, mean, rstd, grad_x, grad_gain, grad_bias, partials);
  const long P = row_blocks(extent['N']);
  const int C = extent['C'];
  require_partials("layer_norm_backward", extent['P'], P);
  with_norm(kind, [&](auto tag) {
    x.visit_with(grad_x, [&](const auto& tensor, const auto& gradient) {
      norm_backward_kernel<decltype(tag)::value>(exec, grad_y, tensor, gain, mean, rstd, write, gradient, partials);
    });
  });
  const MasterTensor2 sums(partials.data(), partials.extent(0), 2 * partials.extent(2));
  add_partials("dekoder::layer_norm_backward::gain", exec, sums, P, 0, grad_gain);
  if (grad_bias.size() > 0) add_partials("dekoder::layer_norm_backward::bias", exec, sums, P, C, grad_bias);
}

}  // namespace dekoder
