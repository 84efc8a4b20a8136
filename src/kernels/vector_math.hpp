// SPDX-License-Identifier: Apache-2.0
// Elementary functions without branches, so that loops over them vectorise. In fp32: minimax polynomials (Lawson's
// iteration on Chebyshev points), a few units in the last place; in double: the standard functions, so that
// gradient checks see full precision. NaN stays NaN everywhere.
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

namespace dekoder {

/// e^x. fp32: x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts (Cody, Waite 1980, chapter 6), a polynomial of
/// degree 6 for e^r, and n added to the exponent in two halves, for n may be 128. 0 below -87.3, where e^x leaves
/// the normal numbers; +Inf above 88.72.
KOKKOS_FORCEINLINE_FUNCTION float fast_exp(float x) {
  constexpr float lowest = -87.3f, highest = 88.72f;
  const float bounded = x < lowest ? lowest : (x > highest ? highest : x);  // NaN passes both comparisons
  // Adding 1.5 * 2^23 rounds to an integer in the low mantissa bits.
  const float shifted = bounded * 1.44269504088896341f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 0.0013814596f;
  p = p * r + 0.0083687175f;
  p = p * r + 0.04166839f;
  p = p * r + 0.16666521f;
  p = p * r + 0.49999994f;
  p = p * r * r + r + 1.0f;
  const std::int32_t k = Kokkos::bit_cast<std::int32_t>(shifted) - 0x4B400000;
  const std::int32_t half = k >> 1;
  const float scale1 = Kokkos::bit_cast<float>((half + 127) << 23);
  const float scale2 = Kokkos::bit_cast<float>((k - half + 127) << 23);
  const float y = p * scale1 * scale2;
  const float low = x < lowest ? 0.0f : y;
  return x > highest ? __builtin_inff() : low;
}
KOKKOS_FORCEINLINE_FUNCTION double fast_exp(double x) {
  return Kokkos::exp(x);
}

/// tanh x = sign(x) (1 - 2 / (e^(2|x|) + 1)); below 0.6, where this difference cancels, x + x^3 P(x^2).
KOKKOS_FORCEINLINE_FUNCTION float fast_tanh(float x) {
  const float square = x * x;
  float p = -0.0058951615f;
  p = p * square + 0.020795975f;
  p = p * square - 0.05378383f;
  p = p * square + 0.13331924f;
  p = p * square - 0.333333f;
  const float small = x + x * square * p;
  const float magnitude = x < 0 ? -x : x;
  const float e = fast_exp(magnitude > 10.0f ? 20.0f : 2.0f * magnitude);
  const float large = 1.0f - 2.0f / (e + 1.0f);
  const float result = magnitude < 0.6f ? small : (x < 0 ? -large : large);
  return x != x ? x : result;
}
KOKKOS_FORCEINLINE_FUNCTION double fast_tanh(double x) {
  return Kokkos::tanh(x);
}

/// erf x = sign(x) (1 - e^Q(|x|)), Q a polynomial for log erfc; below 0.9 x P(x^2).
KOKKOS_FORCEINLINE_FUNCTION float fast_erf(float x) {
  const float square = x * x;
  float p = -0.00060904835f;
  p = p * square + 0.0050119907f;
  p = p * square - 0.02677893f;
  p = p * square + 0.112821415f;
  p = p * square - 0.37612525f;
  p = p * square + 1.1283791f;
  const float small = x * p;
  const float magnitude = x < 0 ? -x : x;
  const float bounded = magnitude > 4.0f ? 4.0f : magnitude;
  float q = 0.00019718263f;
  q = q * bounded - 0.0030556156f;
  q = q * bounded + 0.022277117f;
  q = q * bounded - 0.10403742f;
  q = q * bounded - 0.6370597f;
  q = q * bounded - 1.1277496f;
  q = q * bounded - 0.00017748725f;
  const float large = 1.0f - fast_exp(q);
  const float result = magnitude < 0.9f ? small : (x < 0 ? -large : large);
  return x != x ? x : result;
}
KOKKOS_FORCEINLINE_FUNCTION double fast_erf(double x) {
  return Kokkos::erf(x);
}

}  // namespace dekoder
