// SPDX-License-Identifier: Apache-2.0
// The tree of sums over micro-batches, written out as text: the same for any number of ranks.
#include "parallel/leaf_tree.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <string>

namespace dekoder {
namespace {

/// The definition: halves of a power of two; where the right one has no leaf the left one stands alone.
std::string tree_over(long begin, long size, long leaves) {
  if (size == 1) return fmt::format("{}", begin);
  const std::string left = tree_over(begin, size / 2, leaves);
  return begin + size / 2 >= leaves ? left
                                    : fmt::format("({}+{})", left, tree_over(begin + size / 2, size / 2, leaves));
}

/// What a rank holds after its leaves: its sums as text, pushed one after the other as a step does.
std::vector<std::string> sums_of_rank(LeafRange range, long leaves) {
  LeafTree tree(leaves);
  std::vector<std::string> held;
  for (long leaf = range.begin; leaf < range.end; ++leaf) {
    std::string sum = fmt::format("{}", leaf);
    for (int merged = tree.push({0, leaf}); merged > 0; --merged) {
      sum = fmt::format("({}+{})", held.back(), sum);
      held.pop_back();
    }
    held.push_back(sum);
    EXPECT_EQ(held.size(), tree.nodes().size());
  }
  return held;
}

TEST(LeafTree, EveryNumberOfRanksAddsInTheSameOrder) {
  for (long leaves = 1; leaves <= 33; ++leaves) {
    const std::string expected = tree_over(0, long(std::bit_ceil(std::size_t(leaves))), leaves);
    for (int ranks = 1; ranks <= leaves; ++ranks) {
      std::vector<std::string> sums;
      std::vector<TreeNode> slots;
      std::vector<int> last_of;  // the slot of each rank's last node
      long next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const LeafRange range = leaves_of(rank, ranks, leaves);
        EXPECT_EQ(range.begin, next);
        EXPECT_GE(range.size(), leaves / ranks);
        EXPECT_LE(range.size(), (leaves + ranks - 1) / ranks);
        next = range.end;
        const auto nodes = nodes_of(range, leaves);
        const auto held = sums_of_rank(range, leaves);
        ASSERT_EQ(nodes.size(), held.size());
        slots.insert(slots.end(), nodes.begin(), nodes.end());
        sums.insert(sums.end(), held.begin(), held.end());
        last_of.push_back(int(slots.size()) - 1);
      }
      EXPECT_EQ(next, leaves);
      for (const int mine : last_of) {
        std::vector<std::string> slot = sums;
        for (const SlotSum& sum : sums_of(slots, leaves, mine)) {
          // The text keeps left and right apart; a sum of two numbers does not depend on which is which.
          std::string& to = slot[std::size_t(sum.to)];
          const std::string from = slot[std::size_t(sum.from)];
          to = sum.to < sum.from ? fmt::format("({}+{})", to, from) : fmt::format("({}+{})", from, to);
        }
        EXPECT_EQ(slot[std::size_t(mine)], expected) << leaves << " leaves, " << ranks << " ranks, slot " << mine;
      }
    }
  }
}

TEST(LeafTree, RangesOfEqualSharesOfAPowerOfTwoAreOneNode) {
  for (int ranks : {1, 2, 4, 8})
    for (int rank = 0; rank < ranks; ++rank)
      EXPECT_EQ(nodes_of(leaves_of(rank, ranks, 8), 8),
                (std::vector{TreeNode{std::countr_zero(8u / ranks), rank}}));
  EXPECT_EQ(nodes_of({1, 4}, 8), (std::vector{TreeNode{0, 1}, {1, 1}}));
  EXPECT_EQ(nodes_of({3, 5}, 5), (std::vector{TreeNode{0, 3}, {2, 1}})) << "the last of five stands for four";
}

TEST(LeafTree, BuffersGrowWithTheLogarithm) {
  EXPECT_EQ(buffers_of({0, 1}, 8), 0);
  EXPECT_EQ(buffers_of({0, 2}, 2), 1);
  for (int levels = 1; levels < 12; ++levels) {
    EXPECT_EQ(buffers_of({0, 1L << levels}, 1L << levels), levels);
    EXPECT_LE(buffers_of({1, (1L << levels) - 1}, 1L << levels), 2 * levels);
  }
}

TEST(LeafTree, MoreRanksThanLeavesAreAnError) {
  EXPECT_THROW(leaves_of(0, 3, 2), std::logic_error);
  EXPECT_THROW(leaves_of(2, 2, 4), std::logic_error);
}

}  // namespace
}  // namespace dekoder
