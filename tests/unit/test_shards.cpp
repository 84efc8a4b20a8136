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

TEST(Shards, BucketsCloseWhereBackwardIsDone) {
  const Shards shards(1000, unit, {0, 100, 260, 400, 990}, 280, 2);
  // 990 gives 8 elements, too few, 400 gives 600, 260 too few, 100 gives 288.
  EXPECT_EQ(shards.buckets(), (std::vector<FlatRange>{{704, 1000}, {400, 704}, {112, 400}, {0, 112}}));
}

}  // namespace
}  // namespace dekoder
