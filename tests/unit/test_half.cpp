// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5/half.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace dekoder {
namespace {

/// The number by the definition of the format: (-1)^s 2^(e-15) 1.f, or (-1)^s 2^-14 0.f where e = 0.
double defined_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
  const double magnitude = exponent == 0      ? std::ldexp(fraction, -24)
                           : exponent == 0x1f ? std::numeric_limits<double>::infinity()
                                              : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

bool is_nan(std::uint16_t bits) {
  return (bits & 0x7fff) > 0x7c00;
}

TEST(Half, EveryValueThereAndBack) {
  for (int i = 0; i < 65536; ++i) {
    const Half half{static_cast<std::uint16_t>(i)};
    if (is_nan(half.bits)) {
      EXPECT_TRUE(std::isnan(to_float(half))) << i;
      EXPECT_EQ(to_half(to_float(half)).bits | 0x200, half.bits | 0x200) << i;
      continue;
    }
    EXPECT_EQ(to_float(half), defined_value(half.bits)) << i;
    EXPECT_EQ(std::signbit(to_float(half)), (i & 0x8000) != 0) << i;
    EXPECT_EQ(to_half(to_float(half)).bits, half.bits) << i;
  }
}

TEST(Half, RoundsToTheNearestAndTiesToEven) {
  for (std::uint16_t low = 0; low <= 0x7bff; ++low) {
    const auto high = static_cast<std::uint16_t>(low + 1);  // 0x7c00, infinity, takes the place of 65536
    const double upper = high == 0x7c00 ? 65536 : defined_value(high);
    const auto middle = static_cast<float>((defined_value(low) + upper) / 2);
    EXPECT_EQ(to_half(middle).bits, low % 2 == 0 ? low : high) << low;
    EXPECT_EQ(to_half(std::nextafter(middle, 0.0f)).bits, low) << low;
    EXPECT_EQ(to_half(std::nextafter(middle, 1e30f)).bits, high) << low;
    EXPECT_EQ(to_half(-middle).bits, 0x8000 | (low % 2 == 0 ? low : high)) << low;
    EXPECT_EQ(to_half(-std::nextafter(middle, 0.0f)).bits, 0x8000 | low) << low;
    EXPECT_EQ(to_half(-std::nextafter(middle, 1e30f)).bits, 0x8000 | high) << low;
  }
  using Limits = std::numeric_limits<float>;
  EXPECT_EQ(to_half(0.0f).bits, 0);
  EXPECT_EQ(to_half(-0.0f).bits, 0x8000);
  EXPECT_EQ(to_half(Limits::denorm_min()).bits, 0);
  EXPECT_EQ(to_half(Limits::max()).bits, 0x7c00);
  EXPECT_EQ(to_half(-Limits::infinity()).bits, 0xfc00);
  EXPECT_TRUE(is_nan(to_half(Limits::quiet_NaN()).bits));
  EXPECT_TRUE(is_nan(to_half(Limits::signaling_NaN()).bits));
}

#ifdef __FLT16_MANT_DIG__
TEST(Half, AgreesWithTheCompilersType) {
  for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += 4099) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(to_half(value).bits, std::bit_cast<std::uint16_t>(static_cast<_Float16>(value))) << value;
  }
}
#endif

}  // namespace
}  // namespace dekoder
