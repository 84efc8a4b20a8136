// SPDX-License-Identifier: Apache-2.0
#include "kernels/muon.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/gemm.hpp"
#include "kernels/reduction.hpp"
#include "kernels/rows.hpp"

namespace dekoder {

namespace {

/// gradient = Nesterov's update.
void take_momentum(const ExecSpace& exec, const MuonStep& step, const MasterTensor2& gradient,
                   const MasterTensor2& moment) {
  const int C = gradient.extent_int(1);
  const Real kept = step.momentum, scale = step.gradient_scale;
  for_each_row(
      "dekoder::muon::momentum", exec, long(gradient.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long r) {
        Master *g = &gradient(r, 0), *m = &moment(r, 0);
        team.each(C, [=](int c) {
          const Real scaled = g[c] * scale;
          const Real new_moment = kept * m[c] + scaled;
          m[c] = new_moment;
          g[c] = scaled + kept * new_moment;
        });
      });
}

/// x = update * scale, turned where x has the extents of its transpose.
void take_update(const ExecSpace& exec, Real scale, const MasterTensor2& update, const StoredTensor2& x) {
  const bool turned = x.extent(0) != update.extent(0);
  const int columns = x.extent_int(1);
  for_each_row(
      "dekoder::muon::load", exec, long(x.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long i) {
        Stored* row = &x(i, 0);
        team.each(columns, [=](int j) { row[j] = (turned ? update(j, i) : update(i, j)) * scale; });
      });
}

/// polynomial = a I + b A + c polynomial, where it holds A^2.
void take_polynomial(const ExecSpace& exec, const StoredTensor2& A, const StoredTensor2& polynomial) {
  constexpr Real a = Real(3.4445), b = Real(-4.7750), c = Real(2.0315);
  const int m = A.extent_int(0);
  for_each_row(
      "dekoder::muon::polynomial", exec, m, KOKKOS_LAMBDA(const RowTeam& team, long i) {
        const Stored* of_a = &A(i, 0);
        Stored* row = &polynomial(i, 0);
        team.each(m, [=](int j) { row[j] = (j == i ? a : Real(0)) + b * of_a[j] + c * row[j]; });
      });
}

void apply(const ExecSpace& exec, const MuonStep& step, const StoredTensor2& x, const MasterTensor2& gradient,
           const MasterTensor2& value, const StoredTensor2& weight) {
  const bool turned = x.extent(0) != value.extent(0), with_weight = weight.size() > 0;
  const int C = value.extent_int(1);
  const Real kept = Real(1.0 - double(step.learning_rate) * double(step.weight_decay));
  const double longer = double(std::max(value.extent(0), value.extent(1)));
  const Real size = Real(double(step.learning_rate) * 0.2 * std::sqrt(longer));
  for_each_row(
      "dekoder::muon::apply", exec, long(value.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long r) {
        Master *w = &value(r, 0), *g = &gradient(r, 0);
        team.each(C, [=](int c) {
          w[c] = w[c] * kept - size * Real(turned ? x(c, r) : x(r, c));
          g[c] = 0;
          if (with_weight) weight(r, c) = w[c];
        });
      });
}

StoredTensor2 part(const StoredTensor1& scratch, std::size_t rows, std::size_t columns) {
  if (scratch.size() < rows * columns)
    throw ShapeError(fmt::format("muon: scratch of {} elements for {} x {}", scratch.size(), rows, columns));
  return StoredTensor2(scratch.data(), rows, columns);
}

}  // namespace

MuonScratch::MuonScratch(std::size_t elements, std::size_t shorter)
    : x("muon.x", elements),
      next("muon.next", elements),
      square("muon.square", shorter * shorter),
      polynomial("muon.polynomial", shorter * shorter) {}

void muon(const ExecSpace& exec, const MuonStep& step, AccumulatorTensor1 partials, const MuonScratch& scratch,
          MasterTensor2 gradient, MasterTensor2 value, MasterTensor2 moment, StoredTensor2 weight) {
  muon_shapes.match(partials, gradient, value, moment, weight);
  const auto [short_side, long_side] = std::minmax({gradient.extent(0), gradient.extent(1)});
  StoredTensor2 x = part(scratch.x, short_side, long_side), next = part(scratch.next, short_side, long_side);
  const StoredTensor2 square = part(scratch.square, short_side, short_side),
                      polynomial = part(scratch.polynomial, short_side, short_side);
  take_momentum(exec, step, gradient, moment);
  const double norm =
      std::sqrt(sum_of_squares(exec, reshape<ConstMasterTensor1>(gradient, gradient.size()), partials));
  take_update(exec, Real(1 / std::max(norm, 1e-30)), gradient, x);
  for (int i = 0; i < muon_iterations; ++i) {
    gemm(exec, Op::none, Op::transpose, 1, x, x, 0, square);
    gemm(exec, Op::none, Op::none, 1, square, square, 0, polynomial);
    take_polynomial(exec, square, polynomial);
    gemm(exec, Op::none, Op::none, 1, polynomial, x, 0, next);
    std::swap(x, next);
  }
  apply(exec, step, x, gradient, value, weight);
}

double muon_flops(double rows, double columns) {
  const double m = std::min(rows, columns), n = std::max(rows, columns);
  return muon_iterations * 2 * (m * m * n + m * m * m + m * m * n);
}

}  // namespace dekoder
