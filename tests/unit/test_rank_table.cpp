// SPDX-License-Identifier: Apache-2.0
#include "parallel/rank_table.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace dekoder {
namespace {

TEST(RankTable, ListsOfCpus) {
  EXPECT_EQ(numbers_of("0-3,8"), (std::vector{0, 1, 2, 3, 8}));
  EXPECT_EQ(numbers_of("5\n"), (std::vector{5}));
  EXPECT_EQ(numbers_of(""), std::vector<int>{});
}

TEST(RankTable, ThisProcessIsSomewhere) {
  const RankPlace place = own_place("");
  EXPECT_FALSE(place.host.empty());
  EXPECT_GE(place.threads, 1);
  EXPECT_FALSE(numbers_of(place.cpus).empty());
  EXPECT_LE(numbers_of(place.cpus).size(), 4u * std::thread::hardware_concurrency());
}

TEST(RankTable, HostsWithMoreThreadsThanCpusAreNamed) {
  const RankPlace first{"a", "0-3", "0", "", 4}, second{"a", "4-7", "1", "", 4}, other{"b", "0-3", "0", "", 4};
  EXPECT_TRUE(oversubscribed_hosts({first, second, other}).empty());
  EXPECT_EQ(oversubscribed_hosts({first, first, other}),
            (std::vector<std::string>{"a: 2 ranks with 8 threads on 4 CPUs"}));
}

TEST(RankTable, RanksThatWereGivenTheSameCpusAreNamed) {
  const auto on = [](const char* cpus, int threads) { return RankPlace{"a", cpus, "0", "", threads}; };
  EXPECT_TRUE(oversubscribed_hosts({on("0-1", 1), on("0-1", 1), on("2-3", 2)}).empty());
  EXPECT_EQ(oversubscribed_hosts({on("0", 1), on("1-3", 1), on("0", 1)}),
            (std::vector<std::string>{"a: ranks 0, 2 with 2 threads on CPU 0"}));
  EXPECT_EQ(oversubscribed_hosts({on("0-7", 2), on("2-3", 2), on("2", 1)}),
            (std::vector<std::string>{"a: ranks 1, 2 with 3 threads on CPUs 2, 3"}));
  EXPECT_EQ(oversubscribed_hosts({on("0-7", 1), on("4", 2)}),
            (std::vector<std::string>{"a: rank 1 with 2 threads on CPU 4"}));
}

TEST(RankTable, ThreadsWithoutCpuTimeAreNamed) {
  RankPlace first{"a", "0-3", "0", "", 2}, second{"a", "4-7", "0", "", 1};
  first.quota = second.quota = 3;
  EXPECT_TRUE(oversubscribed_hosts({first, second}).empty());
  first.quota = second.quota = 2.5;
  EXPECT_EQ(
      oversubscribed_hosts({first, second}),
      (std::vector<std::string>{"a: 3 threads, which may take the time of 2.5 CPUs (its control group's limit)"}));
}

TEST(RankTable, APlaceInWords) {
  EXPECT_EQ((RankPlace{"n1", "0-3", "0", "41:00.0", 4}).text(),
            "n1, 4 threads on CPUs 0-3, NUMA node 0, GPU 41:00.0");
}

TEST(RankTable, RanksThatShareAGpuAreNamed) {
  const auto on = [](const char* host, const char* gpu) { return RankPlace{host, "0", "0", gpu, 1}; };
  EXPECT_TRUE(shared_devices({on("a", "41"), on("a", "42"), on("b", "41"), on("b", ""), on("b", "")}).empty());
  EXPECT_EQ(shared_devices({on("a", "41"), on("b", "41"), on("a", "41")}),
            (std::vector<std::string>{"a, GPU 41: ranks 0, 2"}));
}

}  // namespace
}  // namespace dekoder
