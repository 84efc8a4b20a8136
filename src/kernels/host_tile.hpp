// SPDX-License-Identifier: Apache-2.0
// A register-blocked product of small tiles for CPUs, on the compiler's vector extension. Host code only.
#pragma once

#include "tensor/tensor.hpp"

namespace dekoder::host {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif
inline constexpr int vector_width = vector_bytes / int(sizeof(Real));
using Vector = Real __attribute__((vector_size(vector_bytes), aligned(sizeof(Real)), may_alias));

/// n rounded up to whole vectors.
constexpr int padded(int n) { return (n + vector_width - 1) / vector_width * vector_width; }

/// One operand as a strided matrix: element (i, k) at data[i * row + k * column].
struct Strided {
  const Real* data;
  long row, column;
};

namespace detail {

template <int rows, int vectors, bool accumulate>
inline void tile_block(int K, Strided a, const Real* b, long b_row, Real* c, long c_row) {
  Vector sum[rows][vectors];
  for (int i = 0; i < rows; ++i)
    for (int v = 0; v < vectors; ++v) {
      if constexpr (accumulate)
        sum[i][v] = *reinterpret_cast<const Vector*>(c + i * c_row + v * vector_width);
      else
        sum[i][v] = Vector{};
    }
  for (int k = 0; k < K; ++k) {
    Vector b_part[vectors];
    for (int v = 0; v < vectors; ++v) b_part[v] = *reinterpret_cast<const Vector*>(b + k * b_row + v * vector_width);
    for (int i = 0; i < rows; ++i) {
      const Real factor = a.data[i * a.row + k * a.column];
      for (int v = 0; v < vectors; ++v) sum[i][v] += factor * b_part[v];
    }
  }
  for (int i = 0; i < rows; ++i)
    for (int v = 0; v < vectors; ++v) *reinterpret_cast<Vector*>(c + i * c_row + v * vector_width) = sum[i][v];
}

template <int vectors, bool accumulate>
inline void tile_column(int M, int K, Strided a, const Real* b, long b_row, Real* c, long c_row) {
  int i = 0;
  const auto at = [&](int row) { return Strided{a.data + row * a.row, a.row, a.column}; };
  for (; i + 8 <= M; i += 8) tile_block<8, vectors, accumulate>(K, at(i), b, b_row, c + i * c_row, c_row);
  if (M - i >= 4) {
    tile_block<4, vectors, accumulate>(K, at(i), b, b_row, c + i * c_row, c_row);
    i += 4;
  }
  for (; i < M; ++i) tile_block<1, vectors, accumulate>(K, at(i), b, b_row, c + i * c_row, c_row);
}

}  // namespace detail

/// c(M,N) = [c +] a(M,K) b(K,N): N is a multiple of vector_width; b and c have rows of at least N elements at distances
/// b_row and c_row. Every element is summed in ascending k.
template <bool accumulate>
inline void tile_product(int M, int N, int K, Strided a, const Real* b, long b_row, Real* c, long c_row) {
  int n = 0;
  for (; n + 2 * vector_width <= N; n += 2 * vector_width)
    detail::tile_column<2, accumulate>(M, K, a, b + n, b_row, c + n, c_row);
  if (n < N) detail::tile_column<1, accumulate>(M, K, a, b + n, b_row, c + n, c_row);
}

}  // namespace dekoder::host
