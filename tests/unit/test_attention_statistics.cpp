// SPDX-License-Identifier: Apache-2.0
// Head statistics: maps whose statistics are known, and random maps against explicit pattern matrices.
#include "kernels/attention/statistics.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "support/host_tensor.hpp"
#include "support/one_thread.hpp"

namespace dekoder::testing {
namespace {

using enum AttentionStatistic;

/// One head's weights by (query, key); what lies above the diagonal is 0.
using Head = std::function<double(int, int)>;

Tensor3 map_of(int T, const std::vector<Head>& heads) {
  std::vector<double> values;
  for (const Head& head : heads)
    for (int t = 0; t < T; ++t)
      for (int s = 0; s < T; ++s) values.push_back(s <= t ? head(t, s) : 0.0);
  return tensor_of<Tensor3>(values, int(heads.size()), T, T);
}

/// All weight of query t on key target(t).
Head one_key(const std::function<int(int)>& target) {
  return [target](int t, int s) { return s == target(t) ? 1.0 : 0.0; };
}

/// Statistics (H,S) in memory that held NaN.
Tensor2 statistics_of(const Tensor3& weights, const std::vector<int>& tokens, const ExecSpace& exec = ExecSpace()) {
  const auto statistics = filled_tensor<Tensor2>(NAN, weights.extent(0), attention_statistic_count);
  const AccumulatorTensor3 sums("sums", weights.extent(0), tokens.size(), 8);
  attention_statistics(exec, weights, tensor_of<TokenTensor1>(tokens, int(tokens.size())), sums, statistics);
  exec.fence();
  return statistics;
}

/// Statistics of a single head.
std::vector<double> of_head(const Head& head, const std::vector<int>& tokens) {
  return values_of(statistics_of(map_of(int(tokens.size()), {head}), tokens));
}

double get(const std::vector<double>& statistics, AttentionStatistic which) {
  return statistics.at(int(which));
}

std::vector<int> distinct_tokens(int T) {
  std::vector<int> tokens(T);
  std::iota(tokens.begin(), tokens.end(), 10);
  return tokens;
}

constexpr double exact = sizeof(Real) == 4 ? 3e-7 : 1e-14;

/// Entropy, mean distance and the five shares, in order.
void expect_all(const std::vector<double>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), std::size_t(attention_statistic_count));
  for (int i = 0; i < attention_statistic_count; ++i)
    EXPECT_NEAR(got[i], want[i], exact * (1 + std::abs(want[i])))
        << attention_statistic_name(AttentionStatistic(i));
}

TEST(AttentionStatistics, NamesInOrder) {
  const std::vector<std::string> names{"entropy",    "mean_distance",   "previous_token", "first_token",
                                       "same_token", "duplicate_token", "induction"};
  ASSERT_EQ(names.size(), std::size_t(attention_statistic_count));
  for (int i = 0; i < attention_statistic_count; ++i)
    EXPECT_EQ(attention_statistic_name(AttentionStatistic(i)), names[i]);
}

TEST(AttentionStatistics, PreviousTokenHead) {
  // Query 0 has no previous token; it can but look at itself, which is the first token, too.
  expect_all(of_head(one_key([](int t) { return std::max(t - 1, 0); }), distinct_tokens(8)),
             {0, 7.0 / 8, 7.0 / 8, 2.0 / 8, 1.0 / 8, 0, 0});
}

TEST(AttentionStatistics, DiagonalHead) {
  expect_all(of_head(one_key([](int t) { return t; }), distinct_tokens(5)), {0, 0, 0, 1.0 / 5, 1, 0, 0});
}

TEST(AttentionStatistics, FirstTokenHead) {
  expect_all(of_head(one_key([](int) { return 0; }), distinct_tokens(5)), {0, 2, 1.0 / 5, 1, 1.0 / 5, 0, 0});
}

TEST(AttentionStatistics, UniformHead) {
  const int T = 6;
  double entropy = 0, share = 0;
  for (int t = 0; t < T; ++t) entropy += std::log(t + 1.0) / T, share += 1 / (t + 1.0) / T;
  expect_all(of_head([](int t, int) { return 1 / (t + 1.0); }, distinct_tokens(T)),
             {entropy, 2.5 / 2, share - 1.0 / T, share, share, 0, 0});
}

TEST(AttentionStatistics, OneToken) {
  expect_all(of_head(one_key([](int) { return 0; }), {3}), {0, 0, 0, 1, 1, 0, 0});
}

TEST(AttentionStatistics, AWeightThatRoundingLeftAboveOneGivesNoNegativeEntropy) {
  const Head head = [](int t, int s) { return s == t ? double(std::nextafter(Real(1), Real(2))) : 0.0; };
  const double entropy = get(of_head(head, distinct_tokens(4)), AttentionStatistic::entropy);
  EXPECT_EQ(entropy, 0.0);
  EXPECT_FALSE(std::signbit(entropy)) << "is printed as -0.0000";
}

TEST(AttentionStatistics, InductionHeadOnARepeatedSequence) {
  // a b c d a b c d: in the second half every query looks at what followed its token in the first half. No query of
  // the first half has anything to look at: half of the weight is on the pattern.
  const std::vector<int> tokens{4, 9, 2, 7, 4, 9, 2, 7};
  const auto statistics = of_head(one_key([](int t) { return t < 4 ? t : t - 3; }), tokens);
  expect_all(statistics, {0, 1.5, 0, 1.0 / 8, 4.0 / 8, 0, 4.0 / 8});
}

TEST(AttentionStatistics, DuplicateTokenHeadOnARepeatedSequence) {
  const std::vector<int> tokens{4, 9, 2, 7, 4, 9, 2, 7};
  const auto statistics = of_head(one_key([](int t) { return t < 4 ? t : t - 4; }), tokens);
  expect_all(statistics, {0, 2, 0, 2.0 / 8, 4.0 / 8, 4.0 / 8, 0});
}

TEST(AttentionStatistics, SeveralEarlierPlacesCountAllOfThem) {
  // a b a c a: query 4 has duplicates at 0 and 2, and induction targets at 1 and 3.
  const std::vector<int> tokens{1, 2, 1, 3, 1};
  // Its weights are 1, 2, 4, 8, 16 in 31.
  const Head head = [](int t, int s) { return t < 4 ? (s == t ? 1.0 : 0.0) : (1 << s) / 31.0; };
  const auto statistics = of_head(head, tokens);
  EXPECT_NEAR(get(statistics, duplicate_token), (1 + 4) / 31.0 / 5, exact);
  EXPECT_NEAR(get(statistics, induction), (2 + 8) / 31.0 / 5, exact);
}

TEST(AttentionStatistics, ATokenRepeatedAtOnce) {
  // a a: query 1's token occurred before, and the token after that place is query 1's own.
  const auto statistics = of_head([](int t, int s) { return t == 0 ? 1.0 : s == 0 ? 0.25 : 0.75; }, {5, 5});
  expect_all(statistics,
             {(0.25 * std::log(4.0) + 0.75 * std::log(4.0 / 3)) / 2, 0.125, 0.125, 0.625, 0.875, 0.125, 0.375});
}

TEST(AttentionStatistics, WithoutRepeatsThereIsNeitherDuplicateNorInduction) {
  const auto statistics = of_head([](int t, int) { return 1 / (t + 1.0); }, distinct_tokens(33));
  EXPECT_EQ(get(statistics, duplicate_token), 0.0);
  EXPECT_EQ(get(statistics, induction), 0.0);
}

TEST(AttentionStatistics, WhatLiesAboveTheDiagonalIsNotRead) {
  const int T = 4;
  const auto weights = map_of(T, {one_key([](int t) { return t; })});
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), weights);
  for (int t = 0; t < T; ++t)
    for (int s = t + 1; s < T; ++s) host(0, t, s) = NAN;
  Kokkos::deep_copy(weights, host);
  expect_all(values_of(statistics_of(weights, distinct_tokens(T))), {0, 0, 0, 1.0 / 4, 1, 0, 0});
}

TEST(AttentionStatistics, NanStaysInItsHead) {
  const auto weights = map_of(3, {one_key([](int t) { return t; }), [](int, int) { return NAN; }});
  const auto statistics = values_of(statistics_of(weights, {1, 2, 3}));
  for (int i = 0; i < attention_statistic_count; ++i) {
    EXPECT_FALSE(std::isnan(statistics[i])) << attention_statistic_name(AttentionStatistic(i));
    EXPECT_TRUE(std::isnan(statistics[attention_statistic_count + i]))
        << attention_statistic_name(AttentionStatistic(i));
  }
}

/// Softmax maps of random scores, and tokens from a small vocabulary.
struct RandomMaps {
  std::vector<int> tokens;
  Tensor3 weights;

  RandomMaps(int T, int H) : tokens(T) {
    const RandomStream numbers(11, site_of("test.maps"));
    for (int t = 0; t < T; ++t) tokens[t] = int(numbers.bits32(std::uint64_t(t)) % 5);
    std::vector<Head> heads;
    for (int h = 0; h < H; ++h)
      heads.push_back([=](int t, int s) {
        const auto score = [&](int key) { return 2 * numbers.child(std::uint64_t(h)).normal(t * T + key); };
        double total = 0;
        for (int key = 0; key <= t; ++key) total += std::exp(score(key));
        return std::exp(score(s)) / total;
      });
    weights = map_of(T, heads);
  }
};

/// A 0-1 matrix (T,T).
using Pattern = std::vector<std::vector<int>>;

/// Rows moved right by one column, zeros moving in.
Pattern shifted_right(Pattern pattern) {
  for (auto& row : pattern) row.insert(row.begin(), 0), row.pop_back();
  return pattern;
}

TEST(AttentionStatistics, RandomMapsAgainstPatternMatrices) {
  for (int T : {2, 9, 40}) {
    const int H = 3;
    const RandomMaps maps(T, H);
    Pattern previous(T, std::vector<int>(T)), first = previous, same = previous, duplicate = previous;
    for (int t = 0; t < T; ++t) {
      same[t][t] = first[t][0] = 1;
      if (t > 0) previous[t][t - 1] = 1;
      for (int s = 0; s < t; ++s) duplicate[t][s] = maps.tokens[s] == maps.tokens[t] ? 1 : 0;
    }
    const std::vector<Pattern> patterns{previous, first, same, duplicate, shifted_right(duplicate)};
    const std::vector<double> w = values_of(maps.weights);
    std::vector<double> want;
    for (int h = 0; h < H; ++h) {
      const double* head = &w[std::size_t(h) * T * T];
      double entropy_sum = 0, distance_sum = 0, total = 0;
      for (int t = 0; t < T; ++t)
        for (int s = 0; s <= t; ++s) {
          const double weight = head[t * T + s];
          entropy_sum -= weight * std::log(weight);
          distance_sum += weight * (t - s);
          total += weight;
        }
      want.insert(want.end(), {entropy_sum / T, distance_sum / T});
      for (const Pattern& pattern : patterns) {
        double mass = 0;
        for (int t = 0; t < T; ++t)
          for (int s = 0; s < T; ++s) mass += pattern[t][s] * head[t * T + s];
        want.push_back(mass / total);
      }
    }
    EXPECT_TRUE(near(statistics_of(maps.weights, maps.tokens), want, exact)) << "T=" << T;
  }
}

#if !defined(DEKODER_BACKEND_CUDA)
TEST(AttentionStatistics, AnyNumberOfThreadsGivesTheSameBits) {
  const ExecSpace all;
  const auto one = one_thread();
  if (!one) GTEST_SKIP() << "one thread only: nothing to compare";
  ASSERT_EQ(one->concurrency(), 1);
  const RandomMaps maps(61, 3);
  EXPECT_TRUE(
      identical(statistics_of(maps.weights, maps.tokens, all), statistics_of(maps.weights, maps.tokens, *one)));
}
#endif

TEST(AttentionStatistics, ConflictNamesTensorAndAxis) {
  const Tensor3 weights("weights", 2, 5, 4);
  const Tensor2 statistics("statistics", 2, attention_statistic_count);
  const TokenTensor1 tokens("tokens", 5);
  const AccumulatorTensor3 sums("sums", 2, 5, 8);
  try {
    attention_statistics(ExecSpace(), weights, tokens, sums, statistics);
    FAIL() << "no error";
  } catch (const ShapeError& error) {
    EXPECT_NE(std::string(error.what()).find("weights is (2,5,4)"), std::string::npos) << error.what();
  }
  const Tensor3 square("weights", 2, 5, 5);
  EXPECT_THROW(attention_statistics(ExecSpace(), square, tokens, sums, Tensor2("statistics", 2, 6)), ShapeError);
  EXPECT_THROW(attention_statistics(ExecSpace(), square, tokens, AccumulatorTensor3("sums", 1, 5, 8), statistics),
               ShapeError);
}

}  // namespace
}  // namespace dekoder::testing
