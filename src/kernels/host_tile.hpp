// SPDX-License-Identifier: Apache-2.0
// Products, copies and transposes of tiles that lie in a core's caches. Host code only.
#pragma once

#include <algorithm>

#include "kernels/host_vector.hpp"

namespace dekoder::host {

/// Rows of contiguous elements, `row` elements apart. Where the distance is `fixed` at compile time, the loops
/// below need no register for it.
template <class Element, int fixed = 0>
struct RowsOf {
  Element* data;
  long row = fixed;
  Element* at(int i) const { return data + i * (fixed > 0 ? fixed : row); }
  RowsOf from(int i, int j) const { return {at(i) + j, row}; }
};
template <int fixed>
using FixedRows = RowsOf<Real, fixed>;
using Rows = FixedRows<0>;

/// The left factor of a product: rows, or their transpose.
template <class SomeRows>
struct Plain {
  SomeRows rows;
  Real at(int i, int k) const { return rows.at(i)[k]; }
  Plain from(int i) const { return {rows.from(i, 0)}; }
};
template <class SomeRows>
struct Transposed {
  SomeRows rows;
  Real at(int i, int k) const { return rows.at(k)[i]; }
  Transposed from(int i) const { return {rows.from(0, i)}; }
};

namespace detail {

/// Vectors side by side in one block of sums, and rows of sums for a number of vectors: as many as the registers
/// hold beside one row of b and one broadcast.
#if defined(__AVX512F__)
inline constexpr int block_vectors = 4;
constexpr int block_rows(int vectors) {
  return vectors == 4 ? 6 : vectors == 3 ? 8 : 12;
}
#else
inline constexpr int block_vectors = 2;
constexpr int block_rows(int vectors) {
  return vectors == 2 ? 6 : 8;
}
#endif

template <int rows, int vectors, bool accumulate, class A, class B, class C>
[[gnu::always_inline]] inline void product_block(int K, A a, B b, C c) {
  Vector sum[rows][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[i][v] = accumulate ? load(c.at(i) + v * vector_width) : Vector{};
  int k = 0;
  do {  // at least once: with a way around it, the compiler keeps the sums twice, and some of them in memory
    Vector b_row[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) b_row[v] = load(b.at(k) + v * vector_width);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Real factor = a.at(i, k);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[i][v] += factor * b_row[v];
    }
  } while (++k < K);
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(c.at(i) + v * vector_width, sum[i][v]);
}

/// Rows [i, M) in blocks of `rows`, then what is left in smaller blocks.
template <int rows, int vectors, bool accumulate, class A, class B, class C>
inline void product_rows(int i, int M, int K, A a, B b, C c) {
  for (; i + rows <= M; i += rows) product_block<rows, vectors, accumulate>(K, a.from(i), b, c.from(i, 0));
  if constexpr (rows > 1) {
    constexpr int smaller = rows > 8 ? 8 : rows > 4 ? 4 : rows / 2;
    if (i < M) product_rows<smaller, vectors, accumulate>(i, M, K, a, b, c);
  }
}

template <int vectors, bool accumulate, class A, class B, class C>
inline void product_columns(int n, int M, int N, int K, A a, B b, C c) {
  for (; n + vectors * vector_width <= N; n += vectors * vector_width)
    product_rows<block_rows(vectors), vectors, accumulate>(0, M, K, a, b.from(0, n), c.from(0, n));
  if constexpr (vectors > 1)
    if (n < N) product_columns<vectors - 1, accumulate>(n, M, N, K, a, b, c);
}

}  // namespace detail

/// c(M,N) = [c +] a(M,K) b(K,N); N is a multiple of vector_width, K at least 1. Every element is summed in
/// ascending k.
template <bool accumulate, class A, class B, class C>
inline void tile_product(int M, int N, int K, A a, B b, C c) {
  detail::product_columns<detail::block_vectors, accumulate>(0, M, N, K, a, b, c);
}

/// to(count, width) = from(count, D), zeros in columns [D, width).
template <class From, class To>
inline void copy_rows(int count, int D, int width, From from, To to) {
  for (int i = 0; i < count; ++i) {
    const auto* source = from.at(i);
    auto* target = to.at(i);
    int d = 0;
    for (; d + vector_width <= D; d += vector_width) store(target + d, load(source + d));
    for (; d < D; ++d) target[d] = source[d];
    for (; d < width; ++d) target[d] = 0;
  }
}

/// to(columns, rows) = factor * transpose of from(rows, columns).
template <class From, class To>
inline void transpose_scaled(int rows, int columns, Real factor, From from, To to) {
  int i = 0;
  for (; i + vector_width <= rows; i += vector_width) {
    int j = 0;
    for (; j + vector_width <= columns; j += vector_width) {
      Vector square[vector_width];
#pragma GCC unroll 16
      for (int k = 0; k < vector_width; ++k) square[k] = factor * load(from.at(i + k) + j);
      transpose(square);
#pragma GCC unroll 16
      for (int k = 0; k < vector_width; ++k) store(to.at(j + k) + i, square[k]);
    }
    for (; j < columns; ++j)
      for (int k = i; k < i + vector_width; ++k) to.at(j)[k] = factor * from.at(k)[j];
  }
  for (; i < rows; ++i)
    for (int j = 0; j < columns; ++j) to.at(j)[i] = factor * from.at(i)[j];
}

/// x(rows, width) = 0.
template <class SomeRows>
inline void clear_rows(int rows, int width, SomeRows x) {
  for (int i = 0; i < rows; ++i) std::fill_n(x.at(i), width, Real(0));
}

}  // namespace dekoder::host
