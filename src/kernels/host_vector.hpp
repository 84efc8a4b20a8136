// SPDX-License-Identifier: Apache-2.0
// The CPU's widest vectors of Real through the compiler's vector extension. Host code only.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>
#include <utility>

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

using Vector [[gnu::vector_size(vector_bytes)]] = Real;
using LaneInteger = std::conditional_t<sizeof(Real) == 4, std::int32_t, std::int64_t>;
using IntegerVector [[gnu::vector_size(vector_bytes)]] = LaneInteger;
/// 32 bits to a lane, with as many lanes as a Vector.
using Words [[gnu::vector_size(vector_width * 4)]] = std::uint32_t;

/// n rounded up to whole vectors.
constexpr int padded(int n) {
  return (n + vector_width - 1) / vector_width * vector_width;
}

/// vector_width neighbours.
inline Vector load(const Real* from) {
  Vector x;
  __builtin_memcpy(&x, from, sizeof x);  // unaligned
  return x;
}
inline void store(Real* to, Vector x) {
  __builtin_memcpy(to, &x, sizeof x);
}

#if !defined(DEKODER_PRECISION_DOUBLE)
/// The same of bfloat16, converted as BFloat16 does.
using HalfWords [[gnu::vector_size(vector_width * 2)]] = std::uint16_t;
inline Vector load(const BFloat16* from) {
  HalfWords upper;
  __builtin_memcpy(&upper, from, sizeof upper);
  return std::bit_cast<Vector>(__builtin_convertvector(upper, Words) << 16);
}
/// A bfloat16 in the upper half of each word; what is below it means nothing.
inline Words rounded_words(Vector x) {
  const Words whole = std::bit_cast<Words>(x);
  const Words nearest = whole + 0x7fffu + ((whole >> 16) & 1u);
  return (whole & 0x7fffffffu) > 0x7f800000u ? whole | 0x00400000u : nearest;
}
inline void store(BFloat16* to, Vector x) {
  const HalfWords upper = __builtin_convertvector(rounded_words(x) >> 16, HalfWords);
  __builtin_memcpy(to, &upper, sizeof upper);
}
#endif
inline Vector broadcast(Real x) {
  return x - Vector{};
}

/// 0, 1, 2 ... in the lanes.
inline IntegerVector lane_indices() {
  IntegerVector lanes;
  for (int lane = 0; lane < vector_width; ++lane) lanes[lane] = lane;
  return lanes;
}

/// 2^x for x below 126; 0 below -127 (-Inf included); NaN for NaN. x = n + r with |r| <= 1/2, the Chebyshev
/// interpolant of 2^r (fp32: degree 6, relative error 3e-9; double: degree 12, 6e-20), and n put into an exponent.
inline Vector exp2(Vector x) {
  constexpr bool is_float = sizeof(Real) == 4;
  constexpr Real smallest = is_float ? Real(-127) : Real(-1023);
  // Adding 1.5 * 2^(mantissa bits) rounds to an integer in the low bits.
  constexpr Real rounding = is_float ? Real(12582912.0) : Real(6755399441055744.0);
  constexpr LaneInteger bias = is_float ? 127 : 1023, mantissa_bits = is_float ? 23 : 52;
  const Vector bounded = x < smallest ? broadcast(smallest) : x;
  const Vector shifted = bounded + rounding;
  const Vector r = bounded - (shifted - rounding);
  Vector p;
  if constexpr (is_float) {
    p = broadcast(Real(1.546144470e-4));
    p = p * r + Real(1.340042818e-3);
    p = p * r + Real(9.618056679e-3);
    p = p * r + Real(5.550327227e-2);
    p = p * r + Real(2.402265092e-1);
    p = p * r + Real(6.931472067e-1);
    p = p * r + Real(1.000000000e+0);
  } else {
    p = broadcast(Real(2.57335683087568912e-11));
    p = p * r + Real(4.45667534104920588e-10);
    p = p * r + Real(7.05489438634834804e-9);
    p = p * r + Real(1.01780511929606490e-7);
    p = p * r + Real(1.32154868159999770e-6);
    p = p * r + Real(1.52527338562934664e-5);
    p = p * r + Real(1.54035303933627553e-4);
    p = p * r + Real(1.33335581463903528e-3);
    p = p * r + Real(9.61812910762848305e-3);
    p = p * r + Real(5.55041086648216990e-2);
    p = p * r + Real(2.40226506959100712e-1);
    p = p * r + Real(6.93147180559945308e-1);
    p = p * r + Real(1.00000000000000000e+0);
  }
  const IntegerVector exponent = (std::bit_cast<IntegerVector>(shifted) + bias) << mantissa_bits;
  return p * std::bit_cast<Vector>(exponent);
}

namespace detail {

template <int distance, bool high, int... lane>
inline Vector exchange(Vector a, Vector b, std::integer_sequence<int, lane...>) {
  if constexpr (high)
    return __builtin_shufflevector(a, b, ((lane & distance) ? vector_width + lane : lane + distance)...);
  else
    return __builtin_shufflevector(a, b, ((lane & distance) ? vector_width + lane - distance : lane)...);
}

/// Exchanges the off-diagonal blocks of `distance` rows and lanes, then those of half the distance.
template <int distance>
inline void transpose_step(Vector (&rows)[vector_width]) {
  using Lanes = std::make_integer_sequence<int, vector_width>;
#pragma GCC unroll 16
  for (int i = 0; i < vector_width; ++i) {
    if (i & distance) continue;
    const Vector a = rows[i], b = rows[i + distance];
    rows[i] = exchange<distance, false>(a, b, Lanes());
    rows[i + distance] = exchange<distance, true>(a, b, Lanes());
  }
  if constexpr (distance > 1) transpose_step<distance / 2>(rows);
}

}  // namespace detail

/// Transposes a square of vector_width rows in registers (Eklundh 1972).
inline void transpose(Vector (&rows)[vector_width]) {
  detail::transpose_step<vector_width / 2>(rows);
}

namespace detail {

template <int distance, class Combine, int... lane>
inline Vector fold(Vector x, Combine combine, std::integer_sequence<int, lane...> lanes) {
  x = combine(x, __builtin_shufflevector(x, x, (lane ^ distance)...));
  if constexpr (distance > 1)
    return fold<distance / 2>(x, combine, lanes);
  else
    return x;
}

}  // namespace detail

/// combine(Vector, Vector) over all lanes, by a fixed tree.
template <class Combine>
inline Real fold_lanes(Vector x, Combine combine) {
  return detail::fold<vector_width / 2>(x, combine, std::make_integer_sequence<int, vector_width>())[0];
}

}  // namespace dekoder::host
