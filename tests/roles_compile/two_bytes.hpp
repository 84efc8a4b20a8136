// SPDX-License-Identifier: Apache-2.0
// The upper half of a float: a Stored that is another type than Master and Real, for the compile check.
#pragma once

#include <bit>
#include <cstdint>

namespace dekoder {

struct TwoBytes {
  std::uint16_t bits;

  TwoBytes() = default;
  constexpr TwoBytes(float x) : bits(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16)) {}
  constexpr operator float() const { return std::bit_cast<float>(std::uint32_t(bits) << 16); }
};

}  // namespace dekoder
