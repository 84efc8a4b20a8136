// SPDX-License-Identifier: Apache-2.0
// What the forward and backward pass of attention on CPUs share. Scores are kept transposed, keys down and queries
// across: a vector holds neighbouring queries, so that maxima, sums and masks work lane by lane, keys and values
// are read in their own order, and no head size needs padding in the scores.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <string>

#include "kernels/attention/attention.hpp"
#include "kernels/host_tile.hpp"

namespace dekoder::host {

inline constexpr int query_tile = 4 * vector_width;
inline constexpr int key_tile = 64;
inline constexpr Real log2_e = Real(1.44269504088896340736);
inline constexpr Real ln_2 = Real(0.69314718055994530942);

/// Hands out parts of one piece of memory, each aligned to 64 bytes; of none, to learn how much they are.
class Pieces {
 public:
  explicit Pieces(void* memory) : begin_(static_cast<std::byte*>(memory)) {}
  template <class Element>
  Element* take(long rows, long columns) {
    std::byte* const piece = begin_ == nullptr ? nullptr : begin_ + used_;
    used_ += (std::size_t(rows) * std::size_t(columns) * sizeof(Element) + 63) / 64 * 64;
    return reinterpret_cast<Element*>(piece);
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* begin_;
  std::size_t used_ = 0;
};

/// Of a Scratch(Pieces&, sizes...).
template <class Scratch, class... Sizes>
std::size_t bytes_of(const Sizes&... sizes) {
  Pieces none(nullptr);
  Scratch(none, sizes...);
  return none.used();
}

/// What all tasks of one forward pass read and write.
struct ForwardCall {
  ConstHeads qkv;
  AttentionForm form;
  Dropout dropout;
  StoredTensor4 out;
  MasterTensor3 lse;

  int T() const { return out.extent_int(1); }
  int H() const { return out.extent_int(2); }
  int D() const { return out.extent_int(3); }
  int shared() const { return H() / qkv.key.extent_int(2); }  ///< heads of queries to one of keys and values
};

/// What all tasks of one backward pass read and write.
struct BackwardCall {
  ConstHeads qkv;
  ConstStoredTensor4 out, grad_out;
  ConstMasterTensor3 lse;
  AttentionForm form;
  Dropout dropout;
  MasterTensor3 delta;
  Heads grad_qkv;

  int T() const { return out.extent_int(1); }
  int H() const { return out.extent_int(2); }
  int G() const { return qkv.key.extent_int(2); }
  int D() const { return out.extent_int(3); }
  int shared() const { return H() / G(); }  ///< heads of queries to one of keys and values
};

/// What the backward pass in bf16 keeps of each query of a tile until its last tile of keys, which makes its d loss
/// / d scores add up to 0 (see causal_attention_backward): delta for the tiles before that, and the sum of their d
/// loss / d scores. The last tile's delta is (sum + what weight * d loss / d weight adds up to there) / its
/// weights.
template <int tile>
struct OpenSums {
  Real delta[tile], sum[tile];
};
/// Where the weights of the last tile add up to less, it keeps the delta of the others: nothing is divided by 0.
inline constexpr Real least_closing_weight = Real(1e-12);

/// Which gradients a pass makes.
enum class Pass { all, query, key_value };

/// One query of a tile in each column.
using QueryColumns = FixedRows<query_tile>;

/// Rows t of one head of a (B,T,heads,D) tensor whose heads are contiguous.
template <class Tensor>
RowsOf<typename Tensor::value_type> head_rows(const Tensor& x, int b, int head) {
  return {x.data() + x.stride(0) * std::size_t(b) + x.stride(2) * std::size_t(head), long(x.stride(1))};
}

/// task(b, head, i, memory) for i in [0, tasks_per_head) of each of `heads` heads of each sequence, with `bytes` of
/// scratch aligned to 64 bytes; a thread takes the next one when it is done. Throws ShapeError where there are more
/// than Kokkos counts in int.
template <class Task>
void for_each_task(const std::string& label, const ExecSpace& exec, std::size_t sequences, int heads,
                   int tasks_per_head, std::size_t bytes, const Task& task) {
  const std::size_t tasks = sequences * std::size_t(heads) * std::size_t(tasks_per_head);
  if (tasks > std::size_t(std::numeric_limits<int>::max()))
    throw ShapeError(fmt::format("{}: {} tasks; expected at most {}: fewer sequences, heads or tokens at a time",
                                 label, tasks, std::numeric_limits<int>::max()));
  using Policy = Kokkos::TeamPolicy<ExecSpace, Kokkos::Schedule<Kokkos::Dynamic>>;
  Policy policy(exec, int(tasks), 1, 1);
  policy.set_chunk_size(1).set_scratch_size(1, Kokkos::PerTeam(bytes + 64));
  Kokkos::parallel_for(
      label, policy, KOKKOS_LAMBDA(const Policy::member_type& team) {
        const int head = team.league_rank() / tasks_per_head;
        task(head / heads, head % heads, team.league_rank() % tasks_per_head,
             team.team_scratch(1).get_shmem_aligned(bytes, 64));
      });
}

/// A tile of the scores of one head: queries [query, query + queries) against keys [key, key + keys), keys <= the
/// last query.
struct ScoreTile {
  int query, queries, key, keys;
  AttentionForm form;

  int width() const { return padded(queries); }
  /// Keys of this tile that some query of vector v sees.
  int keys_seen(int v) const { return std::min(keys, query + (v + 1) * vector_width - key); }
  /// Keys of this tile that every query of vector v sees, but for those before keys_left().
  int keys_seen_by_all(int v) const { return std::clamp(query + v * vector_width - key + 1, 0, keys); }
  /// Keys at the begin of this tile that lie before the windows of all queries of vector v.
  int keys_before(int v) const {
    return std::clamp(form.first_key(query + v * vector_width) - key, 0, std::max(0, keys_seen(v)));
  }
  /// Keys at the begin of this tile that lie before the window of a query of vector v.
  int keys_left(int v) const {
    return std::clamp(form.first_key(query + (v + 1) * vector_width - 1) - key, 0, std::max(0, keys_seen(v)));
  }
  /// The lanes of vector v that see key k of this tile.
  IntegerVector sees(int v, int k) const {
    const IntegerVector lanes = lane_indices();
    const LaneInteger ahead = LaneInteger(key + k) - LaneInteger(query + v * vector_width);
    return (lanes >= ahead) & (lanes - LaneInteger(form.window) < ahead);
  }
};

/// Tiles of so many tokens of `tokens`.
constexpr int tiles_of(int tokens, int tile) {
  return (tokens + tile - 1) / tile;
}

/// Keys that a task packs at once, whole tiles: as many as a core's second cache holds with their values and the
/// gradients of both.
inline int key_block(int T, int D) {
  static_assert(query_tile % key_tile == 0 || key_tile % query_tile == 0);
  constexpr std::size_t bytes = std::size_t{512} << 10;
  constexpr int unit = std::max(query_tile, key_tile);
  const int units = int(bytes / (4 * sizeof(Real) * std::size_t(padded(D)) * unit));
  return std::min(std::max(units, 1), tiles_of(T, unit)) * unit;
}

/// The first key of the first tile of keys that query t sees one of.
inline int first_tile_key(const AttentionForm& form, int t) {
  return form.first_key(t) / key_tile * key_tile;
}

/// Tiles of queries [from, to) go past one block after the other of the keys that they see: keys(begin, end), then
/// queries(query, begin, end, place) for each tile that sees one of these. `from` and `block` are multiples of a
/// tile. `place` is that of the tile's sums, which are kept between blocks: its number, or 0 for one that meets all
/// its keys at once, as all before it have done then.
template <class Keys, class Queries>
void for_each_block(const AttentionForm& form, int from, int to, int tile, int block, const Keys& keys,
                    const Queries& queries) {
  for (int begin = first_tile_key(form, from); begin < to; begin += block) {
    const int end = std::min(begin + block, to), last = form.end_of_queries(end - 1, to);
    keys(begin, end);
    for (int query = from + std::max(0, begin - from) / tile * tile; query < last; query += tile) {
      const bool at_once = begin <= first_tile_key(form, query) && std::min(query + tile, to) <= end;
      queries(query, begin, end, at_once ? 0 : (query - from) / tile);
    }
  }
}

/// Tiles of queries in one task of the forward pass, at most.
inline int most_tiles_of_task(int T, int tile) {
  return std::min(4, tiles_of(T, tile));
}
/// As many as share the packing of keys and still leave the threads tasks enough.
inline int tiles_of_task(const ForwardCall& call, int tile, int threads) {
  const long all = long(call.out.extent(0)) * call.H() * tiles_of(call.T(), tile);
  return int(std::clamp(all / (8L * threads), 1L, long(most_tiles_of_task(call.T(), tile))));
}

/// How much of a head the scratch of one task of the backward pass holds: tiles of query gradients, keys of one
/// block, and sums of key and value gradients.
struct Held {
  int query_tiles, block, sums;

  static Held head(int T, int D, int tile) {
    const int block = key_block(T, D);
    return {block < T ? tiles_of(T, tile) : 1, block, tiles_of(T, block) * block};
  }
  static Held tile_of_queries(int T, int D) { return {1, key_block(T, D), 0}; }
  static Held tile_of_keys() { return {0, key_tile, key_tile}; }
};

/// Whether a task of the backward pass is a head of keys and values: that costs 5 products a tile on at most as
/// many threads as there are heads; two passes cost 7 on all.
inline bool one_task_per_head(long threads, long heads, std::size_t bytes) {
  constexpr std::size_t most_bytes = std::size_t{64} << 20;
  const long rounds = (heads + threads - 1) / threads;
  return 5 * rounds * threads <= 7 * heads && bytes <= most_bytes;
}

/// body(first key, number of keys, first query) for bands of keys of one tile: vectors of queries that end before
/// the band's keys begin see none of them and are left out.
template <class Body>
[[gnu::always_inline]] inline void for_each_band(const ScoreTile& tile, const Body& body) {
  for (int begin = 0; begin < tile.keys;) {
    const int ahead = tile.key + begin - tile.query;  // of the band's first key against the first query
    const int vector = ahead < 0 ? 0 : ahead / vector_width;
    const int end = std::min(tile.keys, tile.query + (vector + 1) * vector_width - tile.key);
    body(begin, end - begin, vector * vector_width);
    begin = end;
  }
}

/// Dropout factors of one vector of queries at one key, or of keys at one query: those of Dropout::factor, bit for
/// bit. Small: a loop keeps its own copy in registers.
class WeightDropout {
 public:
  enum class Lanes { queries, keys };
  WeightDropout(const Dropout& dropout, int b, int h, int T, Lanes lanes = Lanes::queries)
      : active_(dropout.active()),
        stream_(dropout.sample(b).child(std::uint64_t(h))),
        T_(T),
        threshold_(std::uint32_t(std::ceil(float(dropout.rate) * 0x1p24f))),
        kept_(Real(1) / (Real(1) - dropout.rate)) {
    for (int lane = 0; lane < vector_width; ++lane) {
      const std::uint64_t offset = std::uint64_t(lane) * std::uint64_t(lanes == Lanes::queries ? T : 1);
      offset_low_[lane] = std::uint32_t(offset);
      offset_high_[lane] = std::uint32_t(offset >> 32);
    }
  }

  bool active() const { return active_; }

  /// From this query and key on.
  [[gnu::always_inline]] Vector factors(int query, int key) const {
    const std::uint64_t first = std::uint64_t(query) * std::uint64_t(T_) + std::uint64_t(key);
    const std::uint32_t first_low = std::uint32_t(first), first_high = std::uint32_t(first >> 32);
    const Words low = first_low + offset_low_;
    const Words carry = std::bit_cast<Words>(low < first_low);  // all bits: -1
    const Words bits = stream_.bits32(low, first_high + offset_high_ - carry);
    // u 2^-24 < rate for a whole number u is u < ceil(rate 2^24).
    const auto dropped = (bits >> 8) < threshold_;
    return __builtin_convertvector(dropped, IntegerVector) ? Vector{} : broadcast(kept_);
  }

 private:
  bool active_;
  RandomStream stream_;
  int T_;
  std::uint32_t threshold_;
  Real kept_;
  Words offset_low_, offset_high_;  ///< of the lanes' elements from the first one's
};

}  // namespace dekoder::host
