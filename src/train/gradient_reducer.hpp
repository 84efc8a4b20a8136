// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "parallel/communicator.hpp"
#include "parallel/leaf_tree.hpp"
#include "parallel/shards.hpp"
#include "tensor/parameter_store.hpp"

namespace dekoder {

/// What all ranks together send in a step: of every sum that a rank holds the pieces of the others, and the updated
/// pieces of each to all others. (P - 1) times the buffer each way where every rank holds one sum.
std::uint64_t bytes_of_step(const Shards& shards, long leaves);

/// The gradients of a step: each micro-batch is a leaf of one tree of sums over all of them
/// (parallel/leaf_tree.hpp), on whatever rank it is computed. A rank adds its own leaves up as they come; pieces of
/// what it holds then travel to their owners (parallel/shards.hpp), bucket by bucket while backward of its last
/// leaf goes on, and the owner adds the rest of the tree up. On one rank nothing travels.
///
/// Every leaf is accumulated in store.gradients(), which is zero before. Calls of a step: leaf_done after each leaf
/// but this rank's last; part_done while the last one is computed; finish after it. Then an owner finds the sum in
/// its pieces of store.gradients(); the other pieces are zero.
class GradientReducer {
 public:
  /// Takes all memory; keeps references. `leaves`: micro-batches of a step on all ranks, at least one for each.
  GradientReducer(const Communicator& ranks, const Shards& shards, const ParameterStore& store, long leaves);

  const LeafRange& leaves() const { return range_; }  ///< of this rank
  long leaves_of_step() const { return leaves_; }     ///< of all ranks
  void leaf_done(const ExecSpace& exec);
  /// All gradients from element `from` of the flat buffer on are complete. Sends what that closes, and lets MPI
  /// work.
  void part_done(const ExecSpace& exec, std::size_t from);
  void finish(const ExecSpace& exec);
  /// After the update: every owner's pieces of store.values() to all ranks.
  void share_values(const ExecSpace& exec);

  /// Of the last step.
  double exposed_seconds() const { return exposed_seconds_; }  ///< that this rank waited for messages
  std::uint64_t bytes_sent() const { return bytes_sent_; }  ///< by this rank: gradients, and its parameters to all
  /// Bytes of the device that it takes, for any rank: its buffers for sums, and those for what arrives.
  static std::size_t memory(const Shards& shards, long leaves, int rank);

 private:
  /// A bucket whose pieces arrive.
  struct Arrival {
    std::size_t bucket;
    Messages messages;
  };

  void begin_last_leaf();
  void add_last_leaf(const ExecSpace& exec, FlatRange range);
  void send_bucket(const ExecSpace& exec, std::size_t bucket);
  void expect_bucket(std::size_t bucket);
  void add_bucket(const ExecSpace& exec, std::size_t bucket);
  void advance(const ExecSpace& exec);
  const MasterTensor1& own_node(int ordinal) const;
  int tag_of(std::size_t bucket, int slot) const { return gradient_tag + int(bucket) * int(slots_.size()) + slot; }
  /// Where the sum of a slot, of a bucket, is or arrives.
  MasterTensor1 slot(int slot, std::size_t bucket) const;

  const Communicator& ranks_;
  const Shards& shards_;
  const ParameterStore& store_;
  long leaves_;
  LeafRange range_;

  // What this rank holds: node i of the tree in held_[i], the last one of a step in store.gradients().
  LeafTree tree_;
  std::vector<MasterTensor1> held_;
  long next_leaf_ = 0;
  std::vector<MasterTensor1> last_merges_;  ///< what the last leaf is added to, nearest first

  // What travels. Slots are the nodes of all ranks in the order of their leaves.
  std::vector<TreeNode> slots_;
  std::vector<int> slot_rank_;          ///< whose
  int first_slot_ = 0, own_slots_ = 0;  ///< this rank's
  std::vector<SlotSum> sums_;
  std::vector<MasterTensor1> windows_;  ///< (remote slots x longest piece) of each bucket under way
  bool staged_;                         ///< MPI reads and writes copies in host memory
  std::vector<PinnedBuffer> host_windows_, host_nodes_;
  std::size_t longest_piece_ = 0;
  std::size_t sent_ = 0, expected_ = 0, added_ = 0;  ///< buckets
  std::deque<Arrival> arrivals_;
  Messages departures_;
  double exposed_seconds_ = 0;
  std::uint64_t bytes_sent_ = 0;
};

}  // namespace dekoder
