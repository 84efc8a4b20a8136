// SPDX-License-Identifier: Apache-2.0
#include "tensor/random_stream.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <type_traits>

namespace dekoder::testing {
namespace {

/// Two 32-bit words, the first one low.
constexpr std::uint64_t words(std::uint32_t low, std::uint32_t high) {
  return std::uint64_t(high) << 32 | low;
}

TEST(RandomStream, ThreefryKnownAnswers) {
  // Random123's known-answer vectors of threefry2x32 with 20 rounds.
  EXPECT_EQ(RandomStream::mix(0, 0), words(0x6b200159, 0x99ba4efe));
  EXPECT_EQ(RandomStream::mix(~0ull, ~0ull), words(0x1cb996fc, 0xbb002be7));
  EXPECT_EQ(RandomStream::mix(words(0x13198a2e, 0x03707344), words(0x243f6a88, 0x85a308d3)),
            words(0xc4923a9c, 0x483df7a0));
}

TEST(RandomStream, IsAFunctionOfItsKeyAndIndex) {
  const RandomStream stream(1, 2, 3, 4);
  EXPECT_EQ(stream.bits64(5), RandomStream(1, 2, 3, 4).bits64(5));
  std::set<std::uint64_t> different{stream.bits64(5), stream.bits64(6), stream.child(0).bits64(5),
                                    stream.child(1).bits64(5)};
  for (const auto& other : {RandomStream(2, 2, 3, 4), RandomStream(1, 3, 3, 4), RandomStream(1, 2, 4, 4),
                            RandomStream(1, 2, 3, 5), RandomStream(2, 1, 3, 4), RandomStream(1, 2, 4, 3)})
    different.insert(other.bits64(5));
  EXPECT_EQ(different.size(), 10u);
}

TEST(RandomStream, UniformHasItsMomentsAndRange) {
  const RandomStream stream(7, 8);
  const int count = 200000;
  double sum = 0, squares = 0;
  int bins[10] = {};
  for (int i = 0; i < count; ++i) {
    const double u = stream.uniform(std::uint64_t(i));
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u, squares += u * u;
    ++bins[int(u * 10)];
  }
  EXPECT_NEAR(sum / count, 0.5, 5 * std::sqrt(1.0 / 12 / count));
  EXPECT_NEAR(squares / count, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / count));
  for (const int bin : bins) EXPECT_NEAR(bin, count / 10, 5 * std::sqrt(count * 0.09));
}

TEST(RandomStream, NormalHasItsMoments) {
  const RandomStream stream(7, 9);
  const int count = 200000;
  double moment[5] = {};
  for (int i = 0; i < count; ++i) {
    const double x = stream.normal(std::uint64_t(i));
    ASSERT_TRUE(std::isfinite(x));
    double power = 1;
    for (double& m : moment) m += power / count, power *= x;
  }
  EXPECT_NEAR(moment[1], 0, 5 / std::sqrt(count));
  EXPECT_NEAR(moment[2], 1, 5 * std::sqrt(2.0 / count));
  EXPECT_NEAR(moment[3], 0, 5 * std::sqrt(15.0 / count));
  EXPECT_NEAR(moment[4], 3, 5 * std::sqrt(96.0 / count));
}

TEST(RandomStream, SiteIsFnv1a) {
  EXPECT_EQ(site_of(""), 0xcbf29ce484222325u);
  EXPECT_EQ(site_of("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(site_of("foobar"), 0x85944171f73967e8u);
}

static_assert(std::is_trivially_copyable_v<RandomStream> && sizeof(RandomStream) == 8);
static_assert(site_of("blocks.00") != site_of("blocks.01"));

}  // namespace
}  // namespace dekoder::testing
