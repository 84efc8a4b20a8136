// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

namespace dekoder {

/// A number of IEEE 754 binary16 as its bits: what files hold. Arithmetic is done in float.
/// Kokkos::Experimental::half_t cannot serve: where Kokkos is built for CPUs it is another name of float, with four
/// bytes and no rounding, and files must hold the same bits whatever the backend.
struct Half {
  std::uint16_t bits = 0;

  bool operator==(const Half&) const = default;
};

/// The nearest half, ties to even (IEEE 754-2019, section 4.3.1): 65520 and above become infinite, magnitudes up to
/// 2^-25 become 0. A NaN stays one, with the upper bits of its payload.
constexpr Half to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  const auto half = [sign](std::uint32_t rest) { return Half{static_cast<std::uint16_t>(sign | rest)}; };
  if (magnitude > 0x7f800000) return half(0x7e00 | (magnitude >> 13 & 0x3ff));
  if (magnitude >= 0x477ff000) return half(0x7c00);
  if (magnitude >= 0x38800000) {  // normal: 112 less in the exponent, 13 bits less in the significand
    const std::uint32_t rebased = magnitude - (112u << 23);
    return half((rebased + 0xfff + (rebased >> 13 & 1)) >> 13);
  }
  if (magnitude < 0x33000000) return half(0);
  // subnormal: a multiple of 2^-24
  const std::uint32_t significand = (magnitude & 0x7fffff) | 0x800000, shift = 126 - (magnitude >> 23);
  const std::uint32_t whole = significand >> shift, rest = significand & ((1u << shift) - 1);
  const std::uint32_t middle = 1u << (shift - 1);
  return half(whole + (rest > middle || (rest == middle && (whole & 1) != 0) ? 1 : 0));
}

/// The same number: every half is a float.
constexpr float to_float(Half half) {
  const std::uint32_t sign = (half.bits & 0x8000u) << 16, exponent = half.bits >> 10 & 0x1f,
                      fraction = half.bits & 0x3ff;
  if (exponent == 0) {  // 0 and subnormals
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign == 0 ? magnitude : -magnitude;
  }
  const std::uint32_t rebased = exponent == 0x1f ? 0xff : exponent + 112;
  return std::bit_cast<float>(sign | rebased << 23 | fraction << 13);
}

}  // namespace dekoder
