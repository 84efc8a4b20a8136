// SPDX-License-Identifier: Apache-2.0
#include "kernels/head_norm.hpp"

#include <climits>

#include "kernels/rows.hpp"

namespace dekoder {

namespace {

void require_place(const char* function, const MatchedExtents& extent, int query_heads, int key_heads,
                   const RotaryPlace& place) {
  const int D = int(extent['D']), half = place.cosines.extent_int(1);
  const long T = place.tokens_per_sample;
  const bool turns = place.cosines.size() > 0;
  if (query_heads < 1 || key_heads < 1 || long(query_heads + key_heads) * D > extent['W'] || T < 1 ||
      !place.first.fit(extent['N'] / T, T, turns ? extent['T'] : LONG_MAX) ||
      place.sines.size() != place.cosines.size() || (turns && 2 * half > D))
    throw ShapeError(
        fmt::format("{}: {} heads of queries and {} of keys with {} channels, R={}, {} tokens from positions "
                    "{}..{} on, W={}, T={}",
                    function, query_heads, key_heads, D, 2 * half, T, place.first.least, place.first.largest,
                    extent['W'], extent['T']));
}

KOKKOS_FORCEINLINE_FUNCTION Real reciprocal_root(const RowTeam& team, const Stored* x, int D, Real epsilon) {
  return Real(1) / Kokkos::sqrt(team.sum(D, [=](int d) { return Real(x[d]) * Real(x[d]); }) / Real(D) + epsilon);
}

/// Cosines and sines of one position, none where nothing is turned.
struct Angles {
  const Master *cosine, *sine;
  KOKKOS_FORCEINLINE_FUNCTION Angles(const RotaryPlace& place, long n)
      : cosine(place.cosines.data()), sine(place.sines.data()) {
    const long T = place.tokens_per_sample, row = place.first.of(n / T) + n % T,
               half = long(place.cosines.extent(1));
    if (half == 0) return;
    cosine += row * half;
    sine += row * half;
  }
};

}  // namespace

void norm_heads(const ExecSpace& exec, ConstStoredTensor2 qkv, int query_heads, ConstMasterTensor1 query_gain,
                ConstMasterTensor1 key_gain, Real epsilon, const RotaryPlace& place, StoredTensor2 normed) {
  const auto extent = norm_heads_shapes.match(qkv, query_gain, key_gain, place.cosines, place.sines, normed);
  const int D = int(extent['D']), heads = int(extent['V'] / D), half = place.cosines.extent_int(1);
  if (extent['V'] % D != 0)
    throw ShapeError(fmt::format("norm_heads: V={} is no whole number of heads of D={}", extent['V'], D));
  require_place("norm_heads", extent, query_heads, heads - query_heads, place);
  const RotaryPlace at = place;
  for_each_row(
      "dekoder::norm_heads", exec, long(extent['N']), KOKKOS_LAMBDA(const RowTeam& team, long n) {
        const Angles angles(at, n);
        for (int h = 0; h < heads; ++h) {
          const Master* gain = h < query_heads ? query_gain.data() : key_gain.data();
          const Stored* x = &qkv(n, h * D);
          Stored* y = &normed(n, h * D);
          const Real rstd = reciprocal_root(team, x, D, epsilon);
          team.each(half, [=](int i) {
            const Real a = gain[i] * (x[i] * rstd), b = gain[half + i] * (x[half + i] * rstd);
            y[i] = a * angles.cosine[i] - b * angles.sine[i];
            y[half + i] = b * angles.cosine[i] + a * angles.sine[i];
          });
          team.each(D - 2 * half, [=](int i) { y[2 * half + i] = gain[2 * half + i] * (x[2 * half + i] * rstd); });
        }
      });
}

void norm_heads_backward(const ExecSpace& exec, ConstStoredTensor2 qkv, int query_heads, int key_heads,
                         ConstMasterTensor1 query_gain, ConstMasterTensor1 key_gain, Real epsilon,
                         const RotaryPlace& place, StoredTensor2 grad_qkv, MasterTensor1 grad_query_gain,
                         MasterTensor1 grad_key_gain, MasterTensor2 partials) {
  const auto extent = norm_heads_backward_shapes.match(qkv, query_gain, key_gain, place.cosines, place.sines,
                                                       grad_qkv, grad_query_gain, grad_key_gain, partials);
  require_place("norm_heads_backward", extent, query_heads, key_heads, place);
  const int D = int(extent['D']), heads = query_heads + key_heads, half = place.cosines.extent_int(1);
  const long N = extent['N'], blocks = row_blocks(N);
  require_partials("norm_heads_backward", extent['P'], blocks * heads);
  const RotaryPlace at = place;
  // A block of rows of one head: its rows of partials stand with those of queries or of keys.
  for_each_row(
      "dekoder::norm_heads_backward", exec, blocks * heads, KOKKOS_LAMBDA(const RowTeam& team, long item) {
        const long block = item / heads;
        const int h = int(item % heads);
        const bool of_query = h < query_heads;
        const Master* gain = of_query ? query_gain.data() : key_gain.data();
        const long row =
            of_query ? block * query_heads + h : blocks * query_heads + block * key_heads + (h - query_heads);
        Master* part = &partials(row, 0);
        team.each(D, [=](int d) { part[d] = 0; });
        const long end = (block + 1) * row_block < N ? (block + 1) * row_block : N;
        for (long n = block * row_block; n < end; ++n) {
          const Angles angles(at, n);
          const Stored* x = &qkv(n, h * D);
          Stored* g = &grad_qkv(n, h * D);
          const Real rstd = reciprocal_root(team, x, D, epsilon);
          // The sum over channels of (gradient turned back) * gain * normalized: through the mean square.
          const Real of_pairs = team.sum(half, [=](int i) {
            const Real a = g[i], b = g[half + i], c = angles.cosine[i], s = angles.sine[i];
            return (a * c + b * s) * gain[i] * (x[i] * rstd) +
                   (b * c - a * s) * gain[half + i] * (x[half + i] * rstd);
          });
          const Real of_rest = team.sum(
              D - 2 * half, [=](int i) { return g[2 * half + i] * gain[2 * half + i] * (x[2 * half + i] * rstd); });
          const Real mean = (of_pairs + of_rest) / Real(D);
          team.each(half, [=](int i) {
            const Real a = g[i], b = g[half + i], c = angles.cosine[i], s = angles.sine[i];
            const Real first = a * c + b * s, second = b * c - a * s;
            const Real normed_first = x[i] * rstd, normed_second = x[half + i] * rstd;
            part[i] += first * normed_first;
            part[half + i] += second * normed_second;
            g[i] = rstd * (first * gain[i] - normed_first * mean);
            g[half + i] = rstd * (second * gain[half + i] - normed_second * mean);
          });
          team.each(D - 2 * half, [=](int i) {
            const int d = 2 * half + i;
            const Real gradient = g[d], normalized = x[d] * rstd;
            part[d] += gradient * normalized;
            g[d] = rstd * (gradient * gain[d] - normalized * mean);
          });
        }
      });
  const long of_queries = blocks * query_heads;
  add_partials("dekoder::norm_heads_backward::gain", exec, partials, of_queries, 0, grad_query_gain);
  add_partials("dekoder::norm_heads_backward::gain", exec,
               MasterTensor2(partials.data() + of_queries * D, std::size_t(blocks * key_heads), std::size_t(D)),
               blocks * key_heads, 0, grad_key_gain);
}

}  // namespace dekoder
