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

TEST(RankTable, RanksThatShareAGpuAreNamed) {
  const auto on = [](const char* host, const char* gpu) { return RankPlace{host, "0", "0", gpu, 1}; };
  EXPECT_TRUE(shared_devices({on("a", "41"), on("a", "42"), on("b", "41"), on("b", ""), on("b", "")}).empty());
  EXPECT_EQ(shared_devices({on("a", "41"), on("b", "41"), on("a", "41")}),
            (std::vector<std::string>{"a, GPU 41: ranks 0, 2"}));
}

}  // namespace
}  // namespace dekoder
