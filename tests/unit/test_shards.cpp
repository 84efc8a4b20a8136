// SPDX-License-Identifier: Apache-2.0
#include "parallel/shards.hpp"

#include <gtest/gtest.h>

namespace dekoder {
namespace {

constexpr std::size_t unit = 16;

TEST(Shards, EveryElementHasOneOwnerAndCutsAreWholeUnits) {
  const std::vector<std::size_t> finished = {0, 100, 260, 400, 999, 1000};
  for (const std::size_t flat : {1001u, 1024u, 5000u})
    for (const std::size_t bucket : {1u, 200u, 100000u})
      for (const int ranks : {1, 2, 3, 7, 64}) {
        const Shards shards(flat, unit, finished, bucket, ranks);
        std::vector<int> owners(flat, 0);
        std::size_t end = flat, elements = 0;
        for (std::size_t b = 0; b < shards.buckets().size(); ++b) {
          const FlatRange whole = shards.buckets()[b];
          EXPECT_EQ(whole.end, end) << "buckets follow each other from the end";
          end = whole.begin;
          for (int rank = 0; rank < ranks; ++rank) {
            const FlatRange piece = shards.piece(b, rank);
            EXPECT_TRUE(whole.begin <= piece.begin && piece.begin <= piece.end && piece.end <= whole.end);
            EXPECT_TRUE(piece.begin % unit == 0 || piece.size() == 0) << piece.begin;
            EXPECT_LE(piece.size(), (whole.size() / unit / std::size_t(ranks) + 2) * unit) << "shares are even";
          }
        }
        EXPECT_EQ(end, 0u);
        for (int rank = 0; rank < ranks; ++rank) {
          for (const FlatRange& range : shards.owned(rank))
            for (std::size_t i = range.begin; i < range.end; ++i) ++owners[i];
          elements += shards.owned_elements(rank);
        }
        EXPECT_EQ(owners, std::vector<int>(flat, 1));
        EXPECT_EQ(elements, flat);
      }
}

TEST(Shards, BucketsOfFewUnitsAreSharedOutInTurn) {
  const Shards shards(unit * 300, unit, {0, unit * 100, unit * 200}, unit, 3);
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(shards.owned_elements(rank), unit * 100) << rank;
}

TEST(Shards, OneRankOwnsOneRange) {
  EXPECT_EQ(Shards(5000, unit, {0, 100, 999}, 1, 1).owned(0), (std::vector<FlatRange>{{0, 5000}}));
}

TEST(Shards, PartsOfARangeAreItsOwners) {
  const std::size_t flat = 5000;
  const Shards shards(flat, unit, {0, 100, 260, 400, 999, 1000}, 200, 3);
  std::vector<std::vector<std::size_t>> owned(3);  // of each rank, elements in its order
  for (int rank = 0; rank < 3; ++rank)
    for (const FlatRange& range : shards.owned(rank))
      for (std::size_t i = range.begin; i < range.end; ++i) owned[std::size_t(rank)].push_back(i);
  for (const FlatRange range : {FlatRange{0, flat}, {0, 1}, {99, 1700}, {1000, 1000}, {4990, flat}}) {
    std::vector<int> seen(flat, 0);
    std::vector<std::size_t> next(3, 0);
    for (const OwnedPart& part : shards.parts_of(range)) {
      EXPECT_GE(part.range.begin, next[std::size_t(part.rank)]) << "those of one rank ascend";
      next[std::size_t(part.rank)] = part.range.end;
      for (std::size_t i = 0; i < part.range.size(); ++i) {
        EXPECT_EQ(owned[std::size_t(part.rank)].at(part.place + i), part.range.begin + i);
        ++seen[part.range.begin + i];
      }
    }
    for (std::size_t i = 0; i < flat; ++i) EXPECT_EQ(seen[i], i >= range.begin && i < range.end ? 1 : 0) << i;
  }
}

TEST(Shards, WhatIsWholeIsCutNowhere) {
  const std::size_t flat = unit * 400;
  const std::vector<FlatRange> whole = {{unit * 10, unit * 90}, {unit * 90, unit * 95}, {unit * 120, unit * 300}};
  for (const std::size_t bucket : {unit, unit * 50, flat})
    for (const int ranks : {1, 2, 3, 7}) {
      const Shards shards(flat, unit, {0, unit * 5, unit * 110, unit * 330}, bucket, ranks, whole);
      std::vector<int> owners(flat, 0);
      for (int rank = 0; rank < ranks; ++rank)
        for (const FlatRange& range : shards.owned(rank))
          for (std::size_t i = range.begin; i < range.end; ++i) ++owners[i];
      EXPECT_EQ(owners, std::vector<int>(flat, 1));
      for (const FlatRange& range : whole) {
        std::vector<int> ranks_of;
        for (const OwnedPart& part : shards.parts_of(range)) ranks_of.push_back(part.rank);
        EXPECT_EQ(ranks_of.size(), 1u) << "bucket " << bucket << ", " << ranks << " ranks";
      }
      std::vector<std::vector<std::size_t>> rest(static_cast<std::size_t>(ranks));  // elements in the rank's order
      for (int rank = 0; rank < ranks; ++rank)
        for (const FlatRange& range : without(shards.owned(rank), whole))
          for (std::size_t i = range.begin; i < range.end; ++i) rest[static_cast<std::size_t>(rank)].push_back(i);
      for (const FlatRange range : {FlatRange{0, unit * 10}, {unit * 96, unit * 119}, {unit * 300, flat}})
        for (const OwnedPart& part : shards.parts_beside_whole(range))
          for (std::size_t i = 0; i < part.range.size(); ++i)
            ASSERT_EQ(rest[static_cast<std::size_t>(part.rank)].at(part.place + i), part.range.begin + i);
    }
}

TEST(Shards, WithoutLeavesWhatIsInNoHole) {
  const std::vector<FlatRange> ranges = {{0, 10}, {20, 30}}, holes = {{0, 2}, {4, 6}, {8, 22}, {25, 40}};
  EXPECT_EQ(without(ranges, holes), (std::vector<FlatRange>{{2, 4}, {6, 8}, {22, 25}}));
  EXPECT_EQ(without(ranges, {}), ranges);
  EXPECT_EQ(without(ranges, {{0, 100}}), std::vector<FlatRange>());
}

TEST(Shards, BucketsCloseWhereBackwardIsDone) {
  const Shards shards(1000, unit, {0, 100, 260, 400, 990}, 280, 2);
  // 990 gives 8 elements, too few, 400 gives 600, 260 too few, 100 gives 288.
  EXPECT_EQ(shards.buckets(), (std::vector<FlatRange>{{704, 1000}, {400, 704}, {112, 400}, {0, 112}}));
}

}  // namespace
}  // namespace dekoder
