// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

namespace dekoder {

/// bfloat16: the upper half of an fp32 number, that is its range with 8 bits of precision (steps of 2^-7 of a power
/// of two, rounding errors of at most 2^-8 of a value). For storage alone: arithmetic is that of float. Rounded to
/// nearest, ties to even, by whole numbers, so that hosts and devices make the same bits: subnormals stay, what is
/// beyond the largest becomes Inf, NaN a quiet NaN of its sign.
struct BFloat16 {
  std::uint16_t bits;

  BFloat16() = default;
  KOKKOS_FORCEINLINE_FUNCTION BFloat16(float x) {
    const std::uint32_t whole = Kokkos::bit_cast<std::uint32_t>(x);
    // Half of what is cut off, less one where the last bit kept is even: a carry rounds up.
    const std::uint32_t nearest = whole + 0x7fffu + ((whole >> 16) & 1u);
    const std::uint32_t quiet = whole | 0x00400000u;
    bits = static_cast<std::uint16_t>(((whole & 0x7fffffffu) > 0x7f800000u ? quiet : nearest) >> 16);
  }
  KOKKOS_FORCEINLINE_FUNCTION operator float() const { return Kokkos::bit_cast<float>(std::uint32_t(bits) << 16); }
};

}  // namespace dekoder
