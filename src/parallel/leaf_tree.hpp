// SPDX-License-Identifier: Apache-2.0
// Which numbers are added to which, so that a sum over the micro-batches of a step has the same bits on any number
// of ranks: one binary tree over all of them. Plain arithmetic: no memory, no MPI.
#pragma once

#include <optional>
#include <vector>

namespace dekoder {

/// Neighbouring micro-batches [begin, end) of a step, the leaves of the tree.
struct LeafRange {
  long begin = 0, end = 0;
  long size() const { return end - begin; }
  bool operator==(const LeafRange&) const = default;
};

/// Those of one rank: shares that differ by at most one leaf, in the order of the ranks. Throws std::logic_error
/// unless 0 <= rank < ranks <= leaves.
LeafRange leaves_of(int rank, int ranks, long leaves);

/// The sum over leaves [index 2^level, (index + 1) 2^level), as far as they exist.
struct TreeNode {
  int level = 0;
  long index = 0;
  bool operator==(const TreeNode&) const = default;
};

/// A stack of nodes, in the order of their leaves, of which siblings become their parent as soon as both are there:
/// the carry of a binary counter. A node whose right sibling would lie behind the last leaf is its own parent.
class LeafTree {
 public:
  explicit LeafTree(long leaves) : leaves_(leaves) {}

  /// Puts the next node on top, next to the ones before it, and returns how many nodes below it were merged into
  /// it, from the top down: the sum of a parent is that of its left child plus that of its right child.
  int push(TreeNode node);
  void clear() { nodes_.clear(); }
  const std::vector<TreeNode>& nodes() const { return nodes_; }

 private:
  long leaves_;
  std::vector<TreeNode> nodes_;
};

/// The nodes that are left of a range of leaves: no two of them siblings.
std::vector<TreeNode> nodes_of(LeafRange range, long leaves);

/// The most nodes at one time, while the leaves of a range are pushed one after the other, before the last is
/// pushed: the buffers that a rank needs besides the one that a leaf is computed in.
int buffers_of(LeafRange range, long leaves);

/// slot[to] += slot[from].
struct SlotSum {
  int to = 0, from = 0;
  bool operator==(const SlotSum&) const = default;
};

/// How the nodes of all ranks, slot after slot in the order of their leaves, become the sum over all leaves. It is
/// left in slot `mine`; sums that it has no part in are left in that of their left child.
std::vector<SlotSum> sums_of(const std::vector<TreeNode>& slots, long leaves, int mine);

}  // namespace dekoder
