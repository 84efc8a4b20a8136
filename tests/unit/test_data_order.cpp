// SPDX-License-Identifier: Apache-2.0
#include "data/data_order.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>

#include "base/error.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

using testing_support::message_of;
using Counts = std::vector<std::uint64_t>;
using Weights = std::vector<double>;

TEST(DataOrder, EveryWindowOncePerEpoch) {
  for (const std::uint64_t windows : {1u, 2u, 3u, 4u, 5u, 10u, 16u, 17u, 1000u, 65536u, 65537u}) {
    const DataOrder order(42, windows);
    for (const std::uint64_t epoch : {0u, 1u, 7u}) {
      std::vector<bool> seen(windows, false);
      for (std::uint64_t position = 0; position < windows; ++position) {
        const std::uint64_t window = order.window(epoch * windows + position);
        ASSERT_LT(window, windows);
        ASSERT_FALSE(seen[window]) << windows << " windows, epoch " << epoch;
        seen[window] = true;
      }
    }
  }
}

TEST(DataOrder, DiffersByEpochAndSeedAndFromTheIdentity) {
  const std::uint64_t windows = 1000;
  const DataOrder first(1, windows), second(2, windows);
  int same_seed = 0, same_epoch = 0, identity = 0;
  for (std::uint64_t position = 0; position < windows; ++position) {
    same_seed += first.window(position) == second.window(position);
    same_epoch += first.window(position) == first.window(windows + position);
    identity += first.window(position) == position;
  }
  // fixed points of a random permutation: 1 on average, Poisson
  EXPECT_LT(same_seed, 8);
  EXPECT_LT(same_epoch, 8);
  EXPECT_LT(identity, 8);
}

TEST(DataOrder, StaysAsItIs) {
  // another order would change every run in progress at its next restart
  const DataOrder order(1, 1000);
  std::vector<std::uint64_t> first;
  for (std::uint64_t sample = 0; sample < 8; ++sample) first.push_back(order.window(sample));
  for (std::uint64_t sample = 1000; sample < 1004; ++sample) first.push_back(order.window(sample));
  EXPECT_EQ(first, (std::vector<std::uint64_t>{330, 6, 366, 245, 382, 414, 199, 357, 253, 302, 790, 815}));
}

TEST(MixtureOrder, OfASingleSourceIsItsDataOrder) {
  const DataOrder alone(3, 1000);
  const MixtureOrder order(3, Counts{1000}, Weights{});
  EXPECT_EQ(order.share(0), 1);
  for (std::uint64_t sample = 0; sample < 2500; ++sample) {
    EXPECT_EQ(order.place(sample).source, 0u);
    ASSERT_EQ(order.place(sample).window, alone.window(sample));
  }
}

TEST(MixtureOrder, SharesAreKeptAtEverySampleAndSourcesGoOnInTheirOwnOrder) {
  const std::vector<Weights> cases = {{0.7, 0.3},
                                      {1, 1, 1},
                                      {3, 2, 1, 1, 1, 1, 1},
                                      {1000, 1, 0.02},
                                      {0.5, 0.25, 0.25},
                                      {1.0 / 65536, 65535.0 / 65536},
                                      {1e308, 1e308, 5e307},
                                      {7, 11, 13, 17, 19, 23, 29, 31, 37, 41}};
  for (const Weights& weights : cases) {
    Counts windows;
    for (std::size_t i = 0; i < weights.size(); ++i) windows.push_back(11 + 7 * i);
    const MixtureOrder order(5, windows, weights);
    double sum = 0, shares = 0;
    for (const double weight : weights) sum += weight / weights[0];
    std::vector<std::uint64_t> taken(weights.size(), 0);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      EXPECT_NEAR(order.share(i), weights[i] / weights[0] / sum, 1.0 / 65536);
      shares += order.share(i);
    }
    EXPECT_EQ(shares, 1);
    for (std::uint64_t sample = 0; sample < 150'000; ++sample) {
      const MixtureOrder::Place place = order.place(sample);
      ASSERT_EQ(place.window, DataOrder(5, windows[place.source], place.source).window(taken[place.source]));
      ++taken[place.source];
      for (std::size_t i = 0; i < weights.size(); ++i)
        ASSERT_LT(std::abs(double(taken[i]) - double(sample + 1) * order.share(i)), 1) << sample << " " << i;
    }
  }
}

TEST(MixtureOrder, WithoutWeightsEachWindowIsAsFrequent) {
  const MixtureOrder order(1, Counts{300, 100, 600}, Weights{});
  EXPECT_NEAR(order.share(0), 0.3, 1.0 / 65536);
  EXPECT_NEAR(order.share(1), 0.1, 1.0 / 65536);
  EXPECT_NEAR(order.share(2), 0.6, 1.0 / 65536);
}

TEST(MixtureOrder, SourcesOfOneLengthHaveOrdersOfTheirOwn) {
  int same = 0;
  for (std::uint64_t sample = 0; sample < 1000; ++sample)
    same += DataOrder(1, 1000, 0).window(sample) == DataOrder(1, 1000, 1).window(sample);
  EXPECT_LT(same, 8);  // fixed points of a random permutation
}

TEST(MixtureOrder, StaysAsItIs) {
  // another order would change every run in progress at its next restart
  const MixtureOrder order(1, Counts{1000, 50}, Weights{0.7, 0.3});
  std::vector<std::uint64_t> sources, windows;
  for (const std::uint64_t sample : {0, 1, 2, 3, 4, 5, 65535, 65536, 65537, 1'000'000}) {
    sources.push_back(order.place(sample).source);
    windows.push_back(order.place(sample).window);
  }
  EXPECT_EQ(sources, (Counts{0, 0, 1, 0, 0, 1, 1, 0, 0, 0}));
  EXPECT_EQ(windows, (Counts{330, 6, 47, 366, 245, 41, 42, 937, 231, 524}));
}

TEST(MixtureOrder, RefusesASourceWithoutAPlaceAndWhatIsNoMixture) {
  EXPECT_EQ(message_of<ConfigError>([] { MixtureOrder(1, Counts{5, 5, 5}, Weights{1, 1e-5, 1}); }),
            "data.weights: source 2 of 3 has a share of 5e-06 of all samples; expected at least 1/65536: raise its "
            "weight, or leave it out");
  EXPECT_THROW(MixtureOrder(1, Counts{}, Weights{}), std::logic_error);
  EXPECT_THROW(MixtureOrder(1, Counts{5, 5}, Weights{1}), std::logic_error);
  EXPECT_THROW(MixtureOrder(1, Counts{5, 5}, Weights{1, 0}), std::logic_error);
  EXPECT_THROW(MixtureOrder(1, Counts{5, 5}, Weights{1, std::numeric_limits<double>::quiet_NaN()}),
               std::logic_error);
  EXPECT_THROW(MixtureOrder(1, Counts{5, 0}, Weights{1, 1}), std::logic_error);
}

}  // namespace
}  // namespace dekoder
