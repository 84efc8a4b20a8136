// SPDX-License-Identifier: Apache-2.0
#include "parallel/leaf_tree.hpp"

#include <algorithm>
#include <stdexcept>

namespace dekoder {

LeafRange leaves_of(int rank, int ranks, long leaves) {
  if (rank < 0 || rank >= ranks || ranks > leaves) throw std::logic_error("leaves_of: more ranks than leaves");
  return {leaves * rank / ranks, leaves * (rank + 1) / ranks};
}

int LeafTree::push(TreeNode node) {
  int merged = 0;
  while (true) {
    if (node.index % 2 == 0) {
      // Its right sibling begins at leaf (index + 1) 2^level; the leftmost without one is the root.
      if (node.index == 0 || (node.index + 1) << node.level < leaves_) break;
    } else {
      if (nodes_.empty() || nodes_.back() != TreeNode{node.level, node.index - 1}) break;
      nodes_.pop_back();
      ++merged;
    }
    node = {node.level + 1, node.index / 2};
  }
  nodes_.push_back(node);
  return merged;
}

std::vector<TreeNode> nodes_of(LeafRange range, long leaves) {
  LeafTree tree(leaves);
  for (long leaf = range.begin; leaf < range.end; ++leaf) tree.push({0, leaf});
  return tree.nodes();
}

int buffers_of(LeafRange range, long leaves) {
  LeafTree tree(leaves);
  std::size_t most = 0;
  for (long leaf = range.begin; leaf + 1 < range.end; ++leaf) {
    tree.push({0, leaf});
    most = std::max(most, tree.nodes().size());
  }
  return static_cast<int>(most);
}

std::vector<SlotSum> sums_of(const std::vector<TreeNode>& slots, long leaves, int mine) {
  LeafTree tree(leaves);
  std::vector<int> kept;  // the slot of each node of the tree
  std::vector<SlotSum> sums;
  for (int slot = 0; slot < static_cast<int>(slots.size()); ++slot) {
    int here = slot;
    for (int merged = tree.push(slots[static_cast<std::size_t>(slot)]); merged > 0; --merged) {
      const int left = kept.back();
      kept.pop_back();
      const bool stays = here == mine;
      sums.push_back(stays ? SlotSum{here, left} : SlotSum{left, here});
      if (!stays) here = left;
    }
    kept.push_back(here);
  }
  return sums;
}

}  // namespace dekoder
