// SPDX-License-Identifier: Apache-2.0
#include "kernels/embedding.hpp"

#include <limits>
#include <utility>

#include "kernels/rows.hpp"

namespace dekoder {

namespace {

template <class ResidualTensor>
void embedding_kernel(const ExecSpace& exec, const ConstTokenTensor2& tokens, const ConstStoredTensor2& table,
                      const ConstMasterTensor2& positions, const FirstPositions& first_positions,
                      const Dropout& dropout, const ResidualTensor& x) {
  using Residual = typename ResidualTensor::value_type;
  const int T = tokens.extent_int(1), C = x.extent_int(1);
  const bool with_positions = positions.size() > 0;
  const Dropout drop = dropout;
  const FirstPositions start = first_positions;
  for_each_row(
      "dekoder::embedding", exec, long(x.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long n) {
        const int b = int(n / T), t = int(n % T);
        const Stored* table_row = &table(tokens(b, t), 0);
        Residual* x_row = &x(n, 0);
        if (with_positions) {
          const Master* position = &positions(start.of(b) + t, 0);
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

}  // namespace

void embedding(const ExecSpace& exec, ConstTokenTensor2 tokens, ConstStoredTensor2 table,
               ConstMasterTensor2 positions, const FirstPositions& first, const Dropout& dropout,
               const ResidualTensor2& x) {
  const auto extent = embedding_shapes.match(tokens, table, positions, x);
  const int T = extent['T'];
  const long N = extent['N'];
  if (N != extent['B'] * T)
    throw ShapeError(fmt::format("embedding: x has N={} rows; expected B*T={}", N, extent['B'] * T));
  if (positions.size() > 0 && !first.fit(extent['B'], T, extent['S']))
    throw ShapeError(fmt::format("embedding: positions {}..{} of a table with S={} rows", first.least,
                                 first.largest + T - 1, extent['S']));
  x.visit([&](const auto& tensor) { embedding_kernel(exec, tokens, table, positions, first, dropout, tensor); });
}

namespace {

#if defined(DEKODER_ROW_TEAMS)

/// Places that are sorted by comparing all with all.
constexpr int sort_block = 256;

/// row_begin[v] = first place of token v in row_tokens, which lists the token places in ascending order per token:
/// a merge sort by ranks. Within blocks each place counts those before it; then neighbouring runs are merged pair
/// by pair, where a place of one run is moved by its rank in the other. No atomics and one answer, as no two
/// (token, place) are equal. Binary searches then find the V + 1 begins.
void sort_tokens(const ExecSpace& exec, const ConstTokenTensor2& tokens, const IntTensor1& row_begin,
                 const IntTensor1& row_tokens, const IntTensor1& merged) {
  const int N = row_tokens.extent_int(0), rows = row_begin.extent_int(0);
  if (merged.extent(0) < row_tokens.extent(0))
    throw ShapeError(
        fmt::format("embedding_backward: merged has M={} elements; expected at least {}", merged.extent(0), N));
  const ConstTokenTensor1 token = reshape<ConstTokenTensor1>(tokens, N);
  int passes = 0;
  for (long run = sort_block; run < N; run *= 2) ++passes;
  IntTensor1 from = passes % 2 == 0 ? row_tokens : merged, to = passes % 2 == 0 ? merged : row_tokens;
  const Kokkos::RangePolicy<ExecSpace> places(exec, 0, N);
  Kokkos::parallel_for(
      "dekoder::embedding_backward::sort", places, KOKKOS_LAMBDA(int n) {
        const Token mine = token(n);
        const int begin = n / sort_block * sort_block, end = N - begin < sort_block ? N : begin + sort_block;
        int rank = begin;
        for (int other = begin; other < end; ++other)
          rank += token(other) < mine || (token(other) == mine && other < n) ? 1 : 0;
        from(rank) = n;
      });
  for (long run = sort_block; run < N; run *= 2) {
    Kokkos::parallel_for(
        "dekoder::embedding_backward::merge", places, KOKKOS_LAMBDA(int place) {
          const long first = place / (2 * run) * (2 * run);
          const int middle = int(first + run < N ? first + run : N),
                    end = int(first + 2 * run < N ? first + 2 * run : N);
          const bool left = place < middle;
          const Token mine = token(from(place));
          int low = left ? middle : int(first), high = left ? end : middle;
          while (low < high) {
            const int half = low + (high - low) / 2;
            const Token other = token(from(half));
            if (other < mine || (other == mine && !left))
              low = half + 1;
            else
              high = half;
          }
          to(place - middle + low) = from(place);
        });
    std::swap(from, to);
  }
  Kokkos::parallel_for(
      "dekoder::embedding_backward::begin", Kokkos::RangePolicy<ExecSpace>(exec, 0, rows), KOKKOS_LAMBDA(int v) {
        int low = 0, high = N;
        while (low < high) {
          const int half = low + (high - low) / 2;
          if (token(row_tokens(half)) < v)
            low = half + 1;
          else
            high = half;
        }
        row_begin(v) = low;
      });
}

#else

/// row_begin[v] = first place of token v in row_tokens, which lists the token places in ascending order per token:
/// a counting sort by one thread, 2 N + 2 V steps.
void sort_tokens(const ExecSpace& exec, const ConstTokenTensor2& tokens, const IntTensor1& row_begin,
                 const IntTensor1& row_tokens, const IntTensor1&) {
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

/// The rows of grad_x that a token takes up, and those of a position in every sequence.
struct TokenRows {
  IntTensor1 row_begin, row_tokens;

  KOKKOS_FORCEINLINE_FUNCTION int first(long v) const { return row_begin(v); }
  KOKKOS_FORCEINLINE_FUNCTION int last(long v) const { return row_begin(v + 1); }
  KOKKOS_FORCEINLINE_FUNCTION long row(long, int place) const { return row_tokens(place); }
};
struct PositionRows {
  int tokens_per_sample, samples;

  KOKKOS_FORCEINLINE_FUNCTION int first(long) const { return 0; }
  KOKKOS_FORCEINLINE_FUNCTION int last(long) const { return samples; }
  KOKKOS_FORCEINLINE_FUNCTION long row(long t, int sample) const { return long(sample) * tokens_per_sample + t; }
};

/// grad[v] += the rows of v in ascending order, for v in [0, count). On GPUs one thread adds up one element.
template <class Rows, class ResidualTensor>
void add_rows(const std::string& label, const ExecSpace& exec, long count, const Rows& rows,
              const ResidualTensor& grad_x, const MasterTensor2& grad) {
  const int C = grad.extent_int(1);
#if defined(DEKODER_ROW_TEAMS)
  Kokkos::parallel_for(
      label, Kokkos::RangePolicy<ExecSpace, Kokkos::IndexType<long>>(exec, 0, count * C), KOKKOS_LAMBDA(long i) {
        const long v = i / C, c = i % C;
        Master sum = grad(v, c);
        for (int place = rows.first(v); place < rows.last(v); ++place) sum += grad_x(rows.row(v, place), c);
        grad(v, c) = sum;
      });
#else
  for_each_row(
      label, exec, count, KOKKOS_LAMBDA(const RowTeam& team, long v) {
        Master* grad_row = &grad(v, 0);
        for (int place = rows.first(v); place < rows.last(v); ++place) {
          const auto* gx = &grad_x(rows.row(v, place), 0);
          team.each(C, [=](int c) { grad_row[c] += gx[c]; });
        }
      });
#endif
}

}  // namespace

long token_sort_elements([[maybe_unused]] long tokens) {
#if defined(DEKODER_ROW_TEAMS)
  return tokens;
#else
  return 0;
#endif
}

void embedding_backward(const ExecSpace& exec, ConstTokenTensor2 tokens, const ResidualTensor2& grad_x,
                        MasterTensor2 grad_table, IntTensor1 row_begin, IntTensor1 row_tokens, IntTensor1 merged) {
  const auto extent = embedding_backward_shapes.match(tokens, grad_x, grad_table, row_begin, row_tokens, merged);
  if (extent['W'] != extent['V'] + 1 || extent['N'] != extent['B'] * extent['T'])
    throw ShapeError(fmt::format(
        "embedding_backward: row_begin is ({}), grad_x has {} rows but V={}, B={}, T={}; expected {} and {}",
        extent['W'], extent['N'], extent['V'], extent['B'], extent['T'], extent['V'] + 1,
        extent['B'] * extent['T']));
  if (extent['N'] > std::numeric_limits<int>::max())
    throw ShapeError(fmt::format("embedding_backward: N={} tokens; expected at most {}, which row_tokens can count",
                                 extent['N'], std::numeric_limits<int>::max()));
  sort_tokens(exec, tokens, row_begin, row_tokens, merged);
  grad_x.visit([&](const auto& rows) {
    add_rows("dekoder::embedding_backward", exec, extent['V'], TokenRows{row_begin, row_tokens}, rows, grad_table);
  });
}

void position_backward(const ExecSpace& exec, const ResidualTensor2& grad_x, int tokens_per_sample,
                       MasterTensor2 grad_positions) {
  const auto extent = position_backward_shapes.match(grad_x, grad_positions);
  const long N = extent['N'];
  const int T = tokens_per_sample;
  if (T > extent['S'] || N % T != 0)
    throw ShapeError(
        fmt::format("position_backward: {} tokens in sequences of {} against S={} positions", N, T, extent['S']));
  grad_x.visit([&](const auto& rows) {
    add_rows("dekoder::position_backward", exec, T, PositionRows{T, int(N / T)}, rows, grad_positions);
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
