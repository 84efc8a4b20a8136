// SPDX-License-Identifier: Apache-2.0
#include "train/gradient_reducer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "base/elapsed.hpp"
#include "kernels/accumulate.hpp"
#include "tensor/region.hpp"

namespace dekoder {

namespace {

/// Buckets that may arrive at one time.
constexpr std::size_t most_under_way = 4;

template <class Buffer>
Buffer part(const Buffer& buffer, FlatRange range) {
  return rows(buffer, long(range.begin), long(range.end));
}

/// MPI gets copies in host memory where it cannot reach the device's, or where a test asks for it.
bool stages() {
  const char* asked = std::getenv("DEKODER_MPI_STAGING");
  return asked != nullptr ? asked[0] == '1' : !device_is_host && !mpi_reaches_devices();
}

std::size_t longest_piece_of(const Shards& shards, int rank) {
  std::size_t longest = 0;
  for (std::size_t b = 0; b < shards.buckets().size(); ++b)
    longest = std::max(longest, shards.piece(b, rank).size());
  return longest;
}

std::size_t windows_of(const Shards& shards) {
  return shards.ranks() == 1 ? 0 : std::min(most_under_way, shards.buckets().size());
}

std::size_t slots_of_others(int ranks, int rank, long leaves) {
  std::size_t slots = 0;
  for (int r = 0; r < ranks; ++r)
    if (r != rank) slots += nodes_of(leaves_of(r, ranks, leaves), leaves).size();
  return slots;
}

}  // namespace

std::uint64_t bytes_of_step(const Shards& shards, long leaves) {
  const int ranks = shards.ranks();
  std::uint64_t elements = std::uint64_t(ranks - 1) * shards.flat();
  for (int rank = 0; rank < ranks; ++rank)
    elements +=
        nodes_of(leaves_of(rank, ranks, leaves), leaves).size() * (shards.flat() - shards.owned_elements(rank));
  return elements * sizeof(Master);
}

std::size_t GradientReducer::memory(const Shards& shards, long leaves, int rank) {
  const std::size_t held = std::size_t(buffers_of(leaves_of(rank, shards.ranks(), leaves), leaves));
  const std::size_t arriving =
      windows_of(shards) * slots_of_others(shards.ranks(), rank, leaves) * longest_piece_of(shards, rank);
  return (held * shards.flat() + arriving) * sizeof(Master);
}

GradientReducer::GradientReducer(const Communicator& ranks, const Shards& shards, const ParameterStore& store,
                                 long leaves)
    : ranks_(ranks),
      shards_(shards),
      store_(store),
      leaves_(leaves),
      range_(leaves_of(ranks.rank(), ranks.size(), leaves)),
      tree_(leaves),
      next_leaf_(range_.begin),
      staged_(ranks.size() > 1 && stages()),
      departures_(ranks) {
  for (int i = 0; i < buffers_of(range_, leaves); ++i) held_.emplace_back("gradients.of_leaves", shards.flat());
  for (int rank = 0; rank < ranks.size(); ++rank) {
    const std::vector<TreeNode> nodes = nodes_of(leaves_of(rank, ranks.size(), leaves), leaves);
    if (rank == ranks.rank()) {
      first_slot_ = int(slots_.size());
      own_slots_ = int(nodes.size());
    }
    slots_.insert(slots_.end(), nodes.begin(), nodes.end());
    slot_rank_.resize(slots_.size(), rank);
  }
  sums_ = sums_of(slots_, leaves, first_slot_ + own_slots_ - 1);
  longest_piece_ = longest_piece_of(shards, ranks.rank());
  const std::size_t arriving = (slots_.size() - std::size_t(own_slots_)) * longest_piece_;
  for (std::size_t i = 0; i < windows_of(shards); ++i) windows_.emplace_back("gradients.arriving", arriving);
  if (!staged_) return;
  for (std::size_t i = 0; i < windows_.size(); ++i) host_windows_.emplace_back("gradients.staged", arriving);
  for (int i = 0; i < own_slots_; ++i) host_nodes_.emplace_back("gradients.staged", shards.flat());
}

void GradientReducer::leaf_done(const ExecSpace& exec) {
  const Region region("gradients");
  const int merged = tree_.push({0, next_leaf_++});
  const std::size_t top = tree_.nodes().size() - 1;  // where the sum is kept
  if (merged == 0) return move(exec, store_.gradients(), held_[top]);
  move_add(exec, store_.gradients(), held_[top + std::size_t(merged) - 1]);
  for (int i = merged - 1; i > 0; --i) add(exec, held_[top + std::size_t(i)], held_[top + std::size_t(i) - 1]);
}

/// The last leaf stays where it was computed, and what it is to be added to is added to it.
void GradientReducer::add_last_leaf(const ExecSpace& exec, FlatRange range) {
  for (const MasterTensor1& held : last_merges_) add(exec, part(held, range), part(store_.gradients(), range));
}

const MasterTensor1& GradientReducer::own_node(int ordinal) const {
  return ordinal + 1 == own_slots_ ? store_.gradients() : held_[std::size_t(ordinal)];
}

MasterTensor1 GradientReducer::slot(int slot, std::size_t bucket) const {
  const FlatRange piece = shards_.piece(bucket, ranks_.rank());
  if (slot_rank_[std::size_t(slot)] == ranks_.rank()) return part(own_node(slot - first_slot_), piece);
  const std::size_t begin = std::size_t(slot < first_slot_ ? slot : slot - own_slots_) * longest_piece_;
  return part(windows_[bucket % windows_.size()], {begin, begin + piece.size()});
}

void GradientReducer::send_bucket(const ExecSpace& exec, std::size_t bucket) {
  const FlatRange whole = shards_.buckets()[bucket];
  if (staged_)
    for (int i = 0; i < own_slots_; ++i)
      Kokkos::deep_copy(exec, part(host_nodes_[std::size_t(i)], whole), part(own_node(i), whole));
  exec.fence("dekoder::gradients");
  for (int to = 0; to < ranks_.size(); ++to) {
    const FlatRange piece = shards_.piece(bucket, to);
    if (to == ranks_.rank() || piece.size() == 0) continue;
    for (int i = 0; i < own_slots_; ++i) {
      const Master* node = staged_ ? host_nodes_[std::size_t(i)].data() : own_node(i).data();
      departures_.send(node + piece.begin, piece.size(), to, tag_of(bucket, first_slot_ + i));
    }
  }
}

void GradientReducer::expect_bucket(std::size_t bucket) {
  Arrival& arrival = arrivals_.emplace_back(bucket, Messages(ranks_));
  const std::size_t elements = shards_.piece(bucket, ranks_.rank()).size(), window = bucket % windows_.size();
  if (elements == 0) return;
  Master* place = staged_ ? host_windows_[window].data() : windows_[window].data();
  for (int s = 0; s < int(slots_.size()); ++s) {
    if (slot_rank_[std::size_t(s)] == ranks_.rank()) continue;
    arrival.messages.receive(place, elements, slot_rank_[std::size_t(s)], tag_of(bucket, s));
    place += longest_piece_;
  }
}

void GradientReducer::add_bucket(const ExecSpace& exec, std::size_t bucket) {
  if (shards_.piece(bucket, ranks_.rank()).size() == 0) return;
  const std::size_t window = bucket % windows_.size();
  if (staged_) Kokkos::deep_copy(exec, windows_[window], host_windows_[window]);
  for (const SlotSum& sum : sums_) add(exec, slot(sum.from, bucket), slot(sum.to, bucket));
  exec.fence("dekoder::gradients");  // before another bucket arrives in its place
}

/// Whatever can be done without waiting.
void GradientReducer::advance(const ExecSpace& exec) {
  const std::size_t buckets = shards_.buckets().size();
  departures_.done();
  while (true) {
    while (expected_ < buckets && expected_ < added_ + windows_.size()) expect_bucket(expected_++);
    if (arrivals_.empty() || arrivals_.front().bucket >= sent_ || !arrivals_.front().messages.done()) return;
    add_bucket(exec, arrivals_.front().bucket);
    arrivals_.pop_front();
    ++added_;
  }
}

/// From here on it is known what the last leaf is added to.
void GradientReducer::begin_last_leaf() {
  const std::size_t held = tree_.nodes().size();
  const int merged = tree_.push({0, next_leaf_++});
  for (int i = 0; i < merged; ++i) last_merges_.push_back(held_[held - 1 - std::size_t(i)]);
}

void GradientReducer::part_done(const ExecSpace& exec, std::size_t from) {
  if (ranks_.size() == 1) return;
  const Region region("gradients");
  if (next_leaf_ + 1 == range_.end) begin_last_leaf();
  for (; sent_ < shards_.buckets().size() && shards_.buckets()[sent_].begin >= from; ++sent_) {
    add_last_leaf(exec, shards_.buckets()[sent_]);
    send_bucket(exec, sent_);
  }
  advance(exec);
}

void GradientReducer::finish(const ExecSpace& exec) {
  const Region region("gradients");
  if (ranks_.size() == 1) {
    begin_last_leaf();
    add_last_leaf(exec, {0, shards_.flat()});
  } else {
    const auto begin = std::chrono::steady_clock::now();
    part_done(exec, 0);
    for (const std::size_t buckets = shards_.buckets().size(); added_ < buckets; advance(exec))
      arrivals_.front().messages.wait(fmt::format("bucket {} of {} of the gradients", added_ + 1, buckets));
    departures_.wait("what this rank sends them of the gradients");
    exposed_seconds_ = seconds_since(begin);
    std::size_t end = 0;  // of what this rank owns so far: the rest is cleared
    for (const FlatRange& own : shards_.owned(ranks_.rank())) {
      if (end < own.begin) clear(exec, part(store_.gradients(), {end, own.begin}));
      end = own.end;
    }
    if (end < shards_.flat()) clear(exec, part(store_.gradients(), {end, shards_.flat()}));
  }
  bytes_sent_ = departures_.bytes_sent() +
                std::uint64_t(ranks_.size() - 1) * shards_.owned_elements(ranks_.rank()) * sizeof(Master);
  departures_ = Messages(ranks_);
  tree_.clear();
  last_merges_.clear();
  next_leaf_ = range_.begin;
  sent_ = expected_ = added_ = 0;
}

void GradientReducer::share_values(const ExecSpace& exec) {
  if (ranks_.size() == 1) return;
  const Region region("parameters");
  const MasterTensor1& values = store_.values_to_write();
  if (staged_) Kokkos::deep_copy(exec, host_nodes_[0], values);
  exec.fence("dekoder::parameters");
  const auto begin = std::chrono::steady_clock::now();
  ranks_.gather(shards_, staged_ ? host_nodes_[0].data() : values.data(), sizeof(Master));
  exposed_seconds_ += seconds_since(begin);
  if (staged_) Kokkos::deep_copy(exec, values, host_nodes_[0]);
}

}  // namespace dekoder
