// SPDX-License-Identifier: Apache-2.0
#include "kernels/embedding.hpp"

#include <limits>

#include "kernels/rows.hpp"

namespace dekoder {

void embedding(const ExecSpace& exec, ConstTokenTensor2 tokens, ConstStoredTensor2 table,
               ConstMasterTensor2 positions, int first_position, const Dropout& dropout, StoredTensor2 x) {
  const auto extent = embedding_shapes.match(tokens, table, positions, x);
  const int T = extent['T'], C = extent['C'];
  const long N = extent['N'];
  if (N != extent['B'] * T)
    throw ShapeError(fmt::format("embedding: x has N={} rows; expected B*T={}", N, extent['B'] * T));
  const bool with_positions = positions.size() > 0;
  if (with_positions && first_position + T > extent['S'])
    throw ShapeError(fmt::format("embedding: positions {}..{} of a table with S={} rows", first_position,
                                 first_position + T - 1, extent['S']));
  const Dropout drop = dropout;
  for_each_row(
      "dekoder::embedding", exec, N, KOKKOS_LAMBDA(const RowTeam& team, long n) {
        const int b = int(n / T), t = int(n % T);
        const Stored* table_row = &table(tokens(b, t), 0);
        Stored* x_row = &x(n, 0);
        if (with_positions) {
          const Master* position = &positions(first_position + t, 0);
          team.each(C, [=](int c) { x_row[c] = table_row[c] + position[c]; });
        } else {
          team.each(C, [=](int c) { x_row[c] = table_row[c]; });
        }
        if (drop.active()) {
          const RandomStream stream = drop.sample(b);
          const std::uint64_t first = std::uint64_t(t) * std::uint64_t(C);
          team.each(C, [=](int c) { x_row[c] = x_row[c] * drop.factor(stream, first + std::uint64_t(c)); });
        }
      });
}

namespace {

#if defined(DEKODER_ROW_TEAMS)

/// row_begin[v] = first place of token v in row_tokens, which lists the token places in ascending order per token.
/// Each token counts the ones before it in that order: N^2 comparisons over N threads, no atomics, one answer. (16
/// million at N = 4096, far less than one layer; V + 1 binary searches then find the rows.)
void sort_tokens(const ExecSpace& exec, const ConstTokenTensor2& tokens, const IntTensor1& row_begin,
                 const IntTensor1& row_tokens) {
  const int N = row_tokens.extent_int(0), rows = row_begin.extent_int(0);
  const ConstTokenTensor1 token = reshape<ConstTokenTensor1>(tokens, N);
  Kokkos::parallel_for(
      "dekoder::embedding_backward::place", Kokkos::RangePolicy<ExecSpace>(exec, 0, N), KOKKOS_LAMBDA(int n) {
        const Token mine = token(n);
        int place = 0;
        for (int other = 0; other < N; ++other)
          place += token(other) < mine || (token(other) == mine && other < n) ? 1 : 0;
        row_tokens(place) = n;
      });
  Kokkos::parallel_for(
      "dekoder::embedding_backward::begin", Kokkos::RangePolicy<ExecSpace>(exec, 0, rows), KOKKOS_LAMBDA(int v) {
        int low = 0, high = N;
        while (low < high) {
          const int middle = (low + high) / 2;
          if (token(row_tokens(middle)) < v)
            low = middle + 1;
          else
            high = middle;
        }
        row_begin(v) = low;
      });
}

#else

/// row_begin[v] = first place of token v in row_tokens, which lists the token places in ascending order per token:
/// a counting sort by one thread, 2 N + 2 V steps.
void sort_tokens(const ExecSpace& exec, const ConstTokenTensor2& tokens, const IntTensor1& row_begin,
                 const IntTensor1& row_tokens) {
  const int T = tokens.extent_int(1), B = tokens.extent_int(0), V = row_begin.extent_int(0) - 1;
  Kokkos::parallel_for(
      "dekoder::embedding_backward::sort", Kokkos::RangePolicy<ExecSpace>(exec, 0, 1), KOKKOS_LAMBDA(int) {
        for (int v = 0; v <= V; ++v) row_begin(v) = 0;
        for (int b = 0; b < B; ++b)
          for (int t = 0; t < T; ++t) ++row_begin(tokens(b, t) + 1);
        for (int v = 0; v < V; ++v) row_begin(v + 1) += row_begin(v);
        // Placing moves the begin of each row to its end, which is the begin of the next one: shift back.
        for (int b = 0; b < B; ++b)
          for (int t = 0; t < T; ++t) row_tokens(row_begin(tokens(b, t))++) = b * T + t;
        for (int v = V; v > 0; --v) row_begin(v) = row_begin(v - 1);
        row_begin(0) = 0;
      });
}

#endif

}  // namespace

void embedding_backward(const ExecSpace& exec, ConstTokenTensor2 tokens, ConstStoredTensor2 grad_x,
                        MasterTensor2 grad_table, IntTensor1 row_begin, IntTensor1 row_tokens) {
  const auto extent = embedding_backward_shapes.match(tokens, grad_x, grad_table, row_begin, row_tokens);
  const int C = extent['C'];
  if (extent['W'] != extent['V'] + 1 || extent['N'] != extent['B'] * extent['T'])
    throw ShapeError(fmt::format(
        "embedding_backward: row_begin is ({}), grad_x has {} rows but V={}, B={}, T={}; expected {} and {}",
        extent['W'], extent['N'], extent['V'], extent['B'], extent['T'], extent['V'] + 1,
        extent['B'] * extent['T']));
  if (extent['N'] > std::numeric_limits<int>::max())
    throw ShapeError(fmt::format("embedding_backward: N={} tokens; expected at most {}, which row_tokens can count",
                                 extent['N'], std::numeric_limits<int>::max()));
  sort_tokens(exec, tokens, row_begin, row_tokens);
  for_each_row(
      "dekoder::embedding_backward", exec, extent['V'], KOKKOS_LAMBDA(const RowTeam& team, long v) {
        Master* grad_row = &grad_table(v, 0);
        for (int place = row_begin(v); place < row_begin(v + 1); ++place) {
          const Stored* gx = &grad_x(row_tokens(place), 0);
          team.each(C, [=](int c) { grad_row[c] += gx[c]; });
        }
      });
}

void position_backward(const ExecSpace& exec, ConstStoredTensor2 grad_x, int tokens_per_sample,
                       MasterTensor2 grad_positions) {
  const auto extent = position_backward_shapes.match(grad_x, grad_positions);
  const long N = extent['N'];
  const int C = extent['C'], T = tokens_per_sample;
  if (T > extent['S'] || N % T != 0)
    throw ShapeError(
        fmt::format("position_backward: {} tokens in sequences of {} against S={} positions", N, T, extent['S']));
  for_each_row(
      "dekoder::position_backward", exec, T, KOKKOS_LAMBDA(const RowTeam& team, long t) {
        Master* grad_row = &grad_positions(t, 0);
        for (long n = t; n < N; n += T) {
          const Stored* gx = &grad_x(n, 0);
          team.each(C, [=](int c) { grad_row[c] += gx[c]; });
        }
      });
}

void sinusoidal_positions(const ExecSpace& exec, MasterTensor2 positions) {
  const auto extent = sinusoidal_positions_shapes.match(positions);
  const int C = extent['C'];
  for_each_row(
      "dekoder::sinusoidal_positions", exec, extent['T'], KOKKOS_LAMBDA(const RowTeam& team, long t) {
        Master* row = &positions(t, 0);
        team.each(C, [=](int c) {
          const double angle = double(t) * Kokkos::pow(10000.0, -double(c / 2 * 2) / double(C));
          row[c] = Real(c % 2 == 0 ? Kokkos::sin(angle) : Kokkos::cos(angle));
        });
      });
}

}  // namespace dekoder
