// SPDX-License-Identifier: Apache-2.0
// Elementary functions without branches, so that loops over them vectorise. In fp32: polynomials, a few units in the last
// place; in double: the standard functions, so that gradient checks see full precision.
#pragma once

#include <Kokkos_Core.hpp>
#include <bit>
#include <cstdint>

namespace dekoder {

/// e^x. fp32: x = n ln 2 + r with |r| <= ln 2 / 2 (Cody, Waite 1980, chapter 6), a polynomial of degree 6 for e^r, and n
/// added to the exponent. 0 below -87.3, +Inf above 88.7; NaN stays NaN.
KOKKOS_FORCEINLINE_FUNCTION float fast_exp(float x) {
  const float bounded = x < -87.3f ? -87.3f : (x > 88.7f ? 88.7f : x);  // NaN passes both comparisons
  // Adding 1.5 * 2^23 rounds to an integer in the low mantissa bits.
  const float shifted = bounded * 1.44269504088896341f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 2^n as 2^(n/2) squared would be needed only for n = 128: bounded keeps n <= 128, so split it.
  const std::int32_t k = std::bit_cast<std::int32_t>(shifted) - 0x4B400000;
  const std::int32_t half = k >> 1;
  const float scale1 = std::bit_cast<float>((half + 127) << 23);
  const float scale2 = std::bit_cast<float>((k - half + 127) << 23);
  const float y = p * scale1 * scale2;
  const float low = x < -87.3f ? 0.0f : y;
  return x > 88.7f ? __builtin_inff() : low;
}
KOKKOS_FORCEINLINE_FUNCTION double fast_exp(double x) { return Kokkos::exp(x); }

/// tanh x = sign(x) (1 - 2 / (e^(2|x|) + 1)).
KOKKOS_FORCEINLINE_FUNCTION float fast_tanh(float x) {
  // Small arguments: the series, where the difference above would cancel (Abramowitz, Stegun 4.5.64).
  const float square = x * x;
  const float series =
      x + x * square * (-1.0f / 3.0f + square * (2.0f / 15.0f + square * (-17.0f / 315.0f + square * (62.0f / 2835.0f))));
  const float magnitude = x < 0 ? -x : x;
  const float e = fast_exp(magnitude > 10.0f ? 20.0f : 2.0f * magnitude);
  const float large = 1.0f - 2.0f / (e + 1.0f);
  return magnitude < 0.35f ? series : (x < 0 ? -large : large);
}
KOKKOS_FORCEINLINE_FUNCTION double fast_tanh(double x) { return Kokkos::tanh(x); }

/// erf x by Abramowitz and Stegun 7.1.28: 1 - 1 / (1 + a1 x + ... + a6 x^6)^16, absolute error 3e-7, for x >= 0, and the
/// series below 0.5.
KOKKOS_FORCEINLINE_FUNCTION float fast_erf(float x) {
  const float magnitude = x < 0 ? -x : x;
  const float bounded = magnitude > 4.0f ? 4.0f : magnitude;
  float q = 4.30638e-5f;
  q = q * bounded + 2.765672e-4f;
  q = q * bounded + 1.520143e-4f;
  q = q * bounded + 9.2705272e-3f;
  q = q * bounded + 4.22820123e-2f;
  q = q * bounded + 7.05230784e-2f;
  q = q * bounded + 1.0f;
  const float q2 = q * q, q4 = q2 * q2, q8 = q4 * q4;
  const float large = 1.0f - 1.0f / (q8 * q8);
  const float square = x * x;
  const float series = 1.12837917f * x *
                       (1.0f + square * (-1.0f / 3 + square * (0.1f + square * (-1.0f / 42 + square * (1.0f / 216)))));
  const float result = magnitude < 0.5f ? series : (x < 0 ? -large : large);
  return x != x ? x : result;
}
KOKKOS_FORCEINLINE_FUNCTION double fast_erf(double x) { return Kokkos::erf(x); }

}  // namespace dekoder
