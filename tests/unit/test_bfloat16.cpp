// SPDX-License-Identifier: Apache-2.0
// bfloat16 against its definition, and the CPU's vectors of it against one at a time.
#include "tensor/bfloat16.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/host_vector.hpp"

namespace dekoder::testing {
namespace {

float float_of(std::uint32_t bits) {
  return std::bit_cast<float>(bits);
}
std::uint16_t rounded(float x) {
  return BFloat16(x).bits;
}
BFloat16 of_bits(std::uint16_t bits) {
  BFloat16 x;
  x.bits = bits;
  return x;
}

TEST(BFloat16, IsTheUpperHalfOfAFloat) {
  static_assert(sizeof(BFloat16) == 2 && std::is_trivially_copyable_v<BFloat16>);
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = of_bits(std::uint16_t(bits));
    EXPECT_EQ(std::bit_cast<std::uint32_t>(value), bits << 16);
    if (!std::isnan(value)) {
      EXPECT_EQ(rounded(value), bits) << "a bfloat16 is rounded to itself";
    }
  }
}

TEST(BFloat16, RoundsToNearestTiesToEven) {
  // Between each number and the next of greater magnitude: below, at and above the middle.
  for (std::uint32_t bits = 0; bits < 0x7f80; ++bits)
    for (const std::uint32_t sign : {0u, 0x8000u}) {
      const std::uint32_t here = bits | sign, next = here + 1, even = bits % 2 == 0 ? here : next;
      EXPECT_EQ(rounded(float_of(here << 16 | 0x0001)), here);
      EXPECT_EQ(rounded(float_of(here << 16 | 0x7fff)), here);
      EXPECT_EQ(rounded(float_of(here << 16 | 0x8000)), even);
      EXPECT_EQ(rounded(float_of(here << 16 | 0x8001)), next);
      EXPECT_EQ(rounded(float_of(here << 16 | 0xffff)), next);
    }
}

TEST(BFloat16, KeepsWhatIsNoOrdinaryNumber) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(rounded(infinity), 0x7f80);
  EXPECT_EQ(rounded(-infinity), 0xff80);
  EXPECT_EQ(rounded(std::numeric_limits<float>::max()), 0x7f80) << "nearer to 2^128 than to the largest";
  EXPECT_EQ(rounded(float_of(0x7f7f7fff)), 0x7f7f) << "the largest";
  EXPECT_EQ(rounded(-0.0f), 0x8000);
  EXPECT_EQ(rounded(float_of(0x00008001)), 0x0001) << "the smallest subnormal";
  // Also those NaNs whose upper half alone would be Inf.
  for (const std::uint32_t nan : {0x7fc00000u, 0x7f800001u, 0xff800001u, 0xffffffffu, 0x7fffffffu}) {
    EXPECT_TRUE(std::isnan(float(BFloat16(float_of(nan))))) << std::hex << nan;
    EXPECT_EQ(rounded(float_of(nan)) >> 15, nan >> 31) << std::hex << nan;
  }
}

TEST(BFloat16, VectorsAreRoundedLikeOneNumber) {
  using namespace host;
  std::vector<float> values;
  for (std::uint64_t bits = 0; bits < 0x100000000; bits += 0x3fff) values.push_back(float_of(std::uint32_t(bits)));
  for (const std::uint32_t bits : {0x7f800001u, 0x7f800000u, 0xff800000u, 0x3f808000u, 0x3f818000u, 0x80000000u})
    values.push_back(float_of(bits));
  values.resize(values.size() / vector_width * vector_width + vector_width);
  std::vector<BFloat16> stored(values.size());
  for (std::size_t i = 0; i < values.size(); i += vector_width) {
    store(&stored[i], load(&values[i]));
    const Vector back = load(&stored[i]);
    for (std::size_t lane = 0; lane < vector_width; ++lane) {
      const BFloat16 expected = values[i + lane];
      ASSERT_EQ(stored[i + lane].bits, expected.bits) << values[i + lane];
      ASSERT_EQ(std::bit_cast<std::uint32_t>(float(back[lane])), std::uint32_t(expected.bits) << 16);
    }
  }
}

}  // namespace
}  // namespace dekoder::testing
