// SPDX-License-Identifier: Apache-2.0
// Attention of bf16 on CPUs with products of it. A task packs a block of keys and values of a head, as the kernels
// read them, for all its queries; scores, weights and their gradients stay in the task's cache, queries down and
// keys across, so that two neighbouring rows make the pairs that a kernel takes as its right factor.
#include "kernels/attention/brgemm_host.hpp"

#if defined(DEKODER_PRECISION_BF16)

#include <array>
#include <cmath>
#include <limits>

#include "kernels/attention/tile_host.hpp"
#include "kernels/brgemm_host.hpp"

namespace dekoder::host {

namespace {

/// Queries, and keys, of a tile of scores.
constexpr int tile = key_tile;
static_assert(tile == brgemm_columns && tile % vector_width == 0);

/// The channels of a head as columns of a right factor: `blocks` times `block`, zeros beyond D.
struct HeadColumns {
  int block, blocks;

  explicit HeadColumns(int D) : block(D > 48 ? 64 : (D + 15) / 16 * 16), blocks((D + block - 1) / block) {}
  int padded() const { return block * blocks; }
};

using StoredRows = RowsOf<const BFloat16>;

/// Rows of one head of a tensor that has tokens down.
template <class Tensor>
StoredRows rows_of(const Tensor& x, int b, int head, int token) {
  const auto rows = head_rows(x, b, head).from(token, 0);
  return {rows.data, rows.row};
}

/// to(D / 2, tile, 2) = the transpose of from(count, D), neighbours along D side by side; zeros from `count` on.
void pack_transposed(int count, int D, StoredRows from, BFloat16* to) {
  const int words = D / 2;
  std::uint32_t* const target = reinterpret_cast<std::uint32_t*>(to);
  const auto source = [&](int i) { return reinterpret_cast<const std::byte*>(from.at(i)); };
  for (int i = 0; i < tile; i += vector_width) {
    int j = 0;
    for (; i + vector_width <= count && j + vector_width <= words; j += vector_width) {
      Vector square[vector_width];
#pragma GCC unroll 16
      for (int k = 0; k < vector_width; ++k) __builtin_memcpy(&square[k], source(i + k) + 4 * j, sizeof(Vector));
      transpose(square);
#pragma GCC unroll 16
      for (int k = 0; k < vector_width; ++k)
        __builtin_memcpy(target + (j + k) * tile + i, &square[k], sizeof(Vector));
    }
    for (; j < words; ++j)
      for (int k = i; k < i + vector_width; ++k) {
        std::uint32_t word = 0;
        if (k < count) __builtin_memcpy(&word, source(k) + 4 * j, sizeof word);
        target[j * tile + k] = word;
      }
  }
}

/// Two vectors of rounded words as pairs, `first` in front.
[[gnu::always_inline]] inline Words pairs_of(Words first, Words second) {
  return (first >> 16) | (second & 0xffff0000u);
}

/// to(blocks, tile / 2, block, 2) = from(count, D), neighbours along the rows side by side; zeros beyond.
void pack_pairs(int count, int D, HeadColumns columns, StoredRows from, BFloat16* to) {
  for (int c = 0; c < columns.blocks; ++c)
    for (int i = 0; i < tile; i += 2, to += 2 * columns.block) {
      const int begin = c * columns.block, end = std::min(columns.block, D - begin);
      int d = 0;
      for (; i + 1 < count && d + vector_width <= end; d += vector_width) {
        HalfWords first, second;
        __builtin_memcpy(&first, from.at(i) + begin + d, sizeof first);
        __builtin_memcpy(&second, from.at(i + 1) + begin + d, sizeof second);
        const Words pairs = __builtin_convertvector(first, Words) | __builtin_convertvector(second, Words) << 16;
        __builtin_memcpy(to + 2 * d, &pairs, sizeof pairs);
      }
      for (; d < columns.block; ++d)
        for (const int next : {0, 1})
          to[2 * d + next] = d < end && i + next < count ? from.at(i + next)[begin + d] : BFloat16(0.0f);
    }
}

/// to(D, tile) = the transpose of from(count, D); zeros from `count` on.
void transpose_rows(int count, int D, StoredRows from, BFloat16* to) {
  const RowsOf<BFloat16> rows{to, tile};
  if (count < tile)
    for (int d = 0; d < D; ++d) std::fill(rows.at(d) + count, rows.at(d) + tile, BFloat16(0.0f));
  transpose_scaled(count, D, Real(1), from, rows);
}

/// Kernels for tiles of 64 rows and for the one that ends a sequence, which has fewer.
class RowKernels {
 public:
  /// shape(rows) of a tile.
  template <class Shape>
  RowKernels(int T, const Shape& shape) : kernels_{T >= tile ? Brgemm::find(shape(tile)) : nullptr, nullptr} {
    if (T % tile != 0) kernels_[1] = Brgemm::find(shape(T % tile));
    found_ = (T < tile || kernels_[0] != nullptr) && (T % tile == 0 || kernels_[1] != nullptr);
  }
  bool found() const { return found_; }
  const Brgemm& of(int rows) const { return *kernels_[rows == tile ? 0 : 1]; }

 private:
  std::array<const Brgemm*, 2> kernels_;
  bool found_;
};

/// c(rows, columns) [+]= a(rows, tile) b for all blocks of columns.
void multiply_columns(const Brgemm& kernel, HeadColumns columns, const BFloat16* a, const BFloat16* b, Real* c) {
  for (int block = 0; block < columns.blocks; ++block)
    kernel(a, b + long(block) * tile * columns.block, c + block * columns.block);
}

struct ForwardKernels {
  RowKernels scores, first, next;

  ForwardKernels(int T, int D, int block, long query_row)
      : scores(T, [&](int rows) { return BrgemmShape{rows, tile, D, query_row, tile, block, false}; }),
        first(T, [&](int rows) { return weighted_values(rows, D, block, false); }),
        next(T, [&](int rows) { return weighted_values(rows, D, block, true); }) {}
  bool found() const { return scores.found() && first.found() && next.found(); }

 private:
  static BrgemmShape weighted_values(int rows, int D, int block, bool accumulate) {
    const HeadColumns columns(D);
    return {rows, columns.block, tile, block, columns.block, columns.padded(), accumulate};
  }
};

/// Largest score of a query so far, and the sum of its weights.
struct RowSoftmax {
  Real largest = -std::numeric_limits<Real>::infinity(), total = 0;
};

/// Of a task of so many tiles of queries, which go past one block of keys after the other.
struct ForwardScratch {
  BFloat16 *keys, *values;  ///< a tile: (D / 2, tile, 2); (blocks, tile / 2, block, 2)
  Real* scores;             ///< (tile, block)
  BFloat16* weights;        ///< (tile, block)
  Real* out;                ///< (query_tiles tile, padded D)
  RowSoftmax* states;       ///< (query_tiles tile)

  ForwardScratch(Pieces& pieces, int D, int query_tiles, int block)
      : keys(pieces.take<BFloat16>(block, D)),
        values(pieces.take<BFloat16>(block, HeadColumns(D).padded())),
        scores(pieces.take<Real>(tile, block)),
        weights(pieces.take<BFloat16>(tile, block)),
        out(pieces.take<Real>(query_tiles * tile, HeadColumns(D).padded())),
        states(pieces.take<RowSoftmax>(query_tiles, tile)) {}
};

/// Scores against a block of keys from `begin` on: weights = exp2(factor (scores - largest)) times dropout's
/// factors of the keys [first, visible), 0 before and from there to `keys`, all counted from `begin`. Their sum
/// before dropout comes to the query's state; returns the factor of what was summed under the largest score before.
Real softmax_row(const Real* scores, int query, int begin, int first, int visible, int keys, Real factor,
                 const WeightDropout& drop, RowSoftmax& state, BFloat16* weights) {
  const IntegerVector lanes = lane_indices();
  const Vector none = broadcast(-std::numeric_limits<Real>::infinity());
  const auto visible_scores = [&](int k) {
    const Vector x = load(scores + k);
    if (k < first) return (lanes >= LaneInteger(first - k)) & (lanes < LaneInteger(visible - k)) ? x : none;
    return k + vector_width <= visible ? x : lanes < LaneInteger(visible - k) ? x : none;
  };
  if (first >= visible) {
    std::fill_n(weights, keys, BFloat16(0.0f));
    return 1;
  }
  const int start = first / vector_width * vector_width;
  Vector vector_largest = none;
  for (int k = start; k < visible; k += vector_width) {
    const Vector x = visible_scores(k);
    vector_largest = x > vector_largest ? x : vector_largest;
  }
  const Real before = state.largest;
  state.largest = std::max(before, fold_lanes(vector_largest, [](Vector x, Vector y) { return x > y ? x : y; }));
  Vector total{};
  int k = 0;
  for (; k < start; k += vector_width) store(weights + k, Vector{});
  for (; k < visible; k += vector_width) {
    Vector weight = exp2(factor * (visible_scores(k) - state.largest));
    total += weight;
    if (drop.active()) weight *= drop.factors(query, begin + k);
    store(weights + k, weight);
  }
  for (; k < keys; k += vector_width) store(weights + k, Vector{});
  const Real correction = before == state.largest ? Real(1)
                          : before == none[0]     ? Real(0)
                                                  : exp2(broadcast(factor * (before - state.largest)))[0];
  state.total = state.total * correction + fold_lanes(total, [](Vector x, Vector y) { return x + y; });
  return correction;
}

/// A task of the forward pass: queries from `from` on of head h of sequence b.
struct ForwardTask {
  const ForwardCall& call;
  const ForwardKernels& kernels;
  int b, h, from, block;
  ForwardScratch s;
  HeadColumns columns{call.D()};

  void pack(int begin, int end) const {
    const int D = call.D(), g = h / call.shared();
    for (int key = begin; key < end; key += tile) {
      const int count = std::min(tile, end - key);
      pack_transposed(count, D, rows_of(call.qkv.key, b, g, key), s.keys + long(key - begin) * D);
      pack_pairs(count, D, columns, rows_of(call.qkv.value, b, g, key),
                 s.values + long(key - begin) * columns.padded());
    }
  }

  /// A tile of queries against those of the packed keys [begin, end) that it sees; writes out and lse with the
  /// last.
  void queries_of(int query, int begin, int end, int place) const {
    const int T = call.T(), D = call.D(), queries = std::min(tile, T - query), width = columns.padded();
    const int first = first_tile_key(call.form, query), from_key = std::max(begin, first) - begin,
              to_key = tiles_of(std::min(end, query + queries) - begin, tile) * tile;
    const WeightDropout drop(call.dropout, b, h, T, WeightDropout::Lanes::keys);
    RowSoftmax* const states = s.states + place * tile;
    Real* const out = s.out + long(place) * tile * width;
    if (begin <= first) std::fill_n(states, queries, RowSoftmax());
    for (int key = from_key; key < to_key; key += tile)
      kernels.scores.of(queries)(rows_of(call.qkv.query, b, h, query).data, s.keys + long(key) * D, s.scores + key);
    for (int q = 0; q < queries; ++q) {
      const int t = query + q, seen = std::max(call.form.first_key(t) - begin, from_key);
      const Real correction =
          softmax_row(s.scores + long(q) * block + from_key, t, begin + from_key, seen - from_key,
                      std::min(t + 1, end) - begin - from_key, to_key - from_key, call.form.scale * log2_e, drop,
                      states[q], s.weights + long(q) * block + from_key);
      if (begin <= first || correction == 1) continue;
      Real* const sum = out + long(q) * width;
#pragma omp simd
      for (int d = 0; d < D; ++d) sum[d] *= correction;
    }
    for (int key = from_key; key < to_key; key += tile) {
      const RowKernels& of_rows = begin + key == first ? kernels.first : kernels.next;
      multiply_columns(of_rows.of(queries), columns, s.weights + key, s.values + long(key) * width, out);
    }
    if (query + queries > end) return;
    const auto target = head_rows(call.out, b, h).from(query, 0);
    for (int q = 0; q < queries; ++q) {
      call.lse(b, h, query + q) = call.form.scale * states[q].largest + std::log(states[q].total);
      const Real* sum = out + long(q) * width;
      const Real factor = Real(1) / states[q].total;
      BFloat16* to = target.at(q);
#pragma omp simd
      for (int d = 0; d < D; ++d) to[d] = sum[d] * factor;
    }
  }
};

}  // namespace

bool brgemm_attention(const ExecSpace& exec, const ForwardCall& call) {
  const int T = call.T(), D = call.D(), block = key_block(T, D);
  if (D % 2 != 0) return false;
  const ForwardKernels kernels(T, D, block, long(call.qkv.query.stride(1)));
  if (!kernels.found()) return false;
  const int of_task = tiles_of_task(call, tile, exec.concurrency()), tasks = tiles_of(T, of_task * tile);
  for_each_task("dekoder::causal_attention", exec, call.out.extent(0), call.H(), tasks,
                bytes_of<ForwardScratch>(D, of_task, block), [&](int b, int h, int i, void* memory) {
                  const int from = (tasks - 1 - i) * of_task * tile;  // the longest first
                  Pieces pieces(memory);
                  const ForwardTask task{
                      call, kernels, b, h, from, block, ForwardScratch(pieces, D, of_task, block)};
                  for_each_block(
                      call.form, from, std::min(from + of_task * tile, T), tile, block,
                      [&](int begin, int end) { task.pack(begin, end); },
                      [&](int query, int begin, int end, int place) { task.queries_of(query, begin, end, place); });
                  release_brgemm();
                });
  return true;
}

namespace {

struct BackwardKernels {
  RowKernels scores, grad_weights, grad_query, grad_keys;

  explicit BackwardKernels(const BackwardCall& call)
      : scores(call.T(), [&](int rows) { return against_keys(rows, call.D(), long(call.qkv.query.stride(1))); }),
        grad_weights(call.T(),
                     [&](int rows) { return against_keys(rows, call.D(), long(call.grad_out.stride(1))); }),
        grad_query(call.T(),
                   [&](int rows) {
                     const HeadColumns columns(call.D());
                     return BrgemmShape{rows, columns.block, tile, tile, columns.block, columns.padded(), true};
                   }),
        grad_keys(call.T(), [&](int rows) {
          return BrgemmShape{call.D(), tile, (rows + 1) / 2 * 2, tile, tile, tile, true};
        }) {}
  bool found() const { return scores.found() && grad_weights.found() && grad_query.found() && grad_keys.found(); }

 private:
  static BrgemmShape against_keys(int rows, int D, long row) { return {rows, tile, D, row, tile, tile, false}; }
};

/// Of a task.
struct BackwardScratch {
  BFloat16 *keys, *values;                       ///< a tile: (D / 2, tile, 2)
  BFloat16* key_pairs;                           ///< a tile: (blocks, tile / 2, block, 2)
  Real *grad_keys, *grad_values;                 ///< a tile: (D, tile), transposed
  Real *scores, *grad_weights;                   ///< (tile, tile)
  BFloat16 *weight_pairs, *grad_score_pairs;     ///< (tile / 2, tile, 2)
  BFloat16* grad_scores;                         ///< (tile, tile)
  BFloat16 *query_transposed, *grad_transposed;  ///< (D, tile)
  Real* grad_query;                              ///< a tile: (tile, padded D)
  OpenSums<tile>* open;                          ///< a tile

  BackwardScratch(Pieces& p, int D, Held held)
      : keys(p.take<BFloat16>(held.block, D)),
        values(p.take<BFloat16>(held.block, D)),
        key_pairs(p.take<BFloat16>(held.block, HeadColumns(D).padded())),
        grad_keys(p.take<Real>(held.sums, D)),
        grad_values(p.take<Real>(held.sums, D)),
        scores(p.take<Real>(tile, tile)),
        grad_weights(p.take<Real>(tile, tile)),
        weight_pairs(p.take<BFloat16>(tile, tile)),
        grad_score_pairs(p.take<BFloat16>(tile, tile)),
        grad_scores(p.take<BFloat16>(tile, tile)),
        query_transposed(p.take<BFloat16>(D, tile)),
        grad_transposed(p.take<BFloat16>(D, tile)),
        grad_query(p.take<Real>(long(held.query_tiles) * tile, HeadColumns(D).padded())),
        open(p.take<OpenSums<tile>>(std::max(1, held.query_tiles), 1)) {}
};

/// One task: all keys that `held` has sums of, from first_sum on, of the head of keys and values g of sequence b.
class BackwardTask {
 public:
  BackwardTask(Pass pass, const BackwardCall& call, const BackwardKernels& kernels, int b, int g, int first_sum,
               Held held, void* memory)
      : pass_(pass),
        call_(call),
        kernels_(kernels),
        columns_(call.D()),
        b_(b),
        g_(g),
        first_sum_(first_sum),
        pieces_(memory),
        s_(pieces_, call.D(), held) {
    std::fill_n(s_.grad_keys, long(call.D()) * held.sums, Real(0));
    std::fill_n(s_.grad_values, long(call.D()) * held.sums, Real(0));
  }
  ~BackwardTask() { release_brgemm(); }
  BackwardTask(const BackwardTask&) = delete;

  void pack(int begin, int end) {
    const int D = call_.D();
    for (int key = begin; key < end; key += tile) {
      const int count = std::min(tile, end - key);
      const long place = key - begin;
      pack_transposed(count, D, rows_of(call_.qkv.key, b_, g_, key), s_.keys + place * D);
      pack_transposed(count, D, rows_of(call_.qkv.value, b_, g_, key), s_.values + place * D);
      if (pass_ != Pass::key_value)
        pack_pairs(count, D, columns_, rows_of(call_.qkv.key, b_, g_, key),
                   s_.key_pairs + place * columns_.padded());
    }
  }

  /// A tile of queries of head h against those of the packed keys [begin, end) that it sees; writes the gradients
  /// of the queries with the last.
  void queries_of(int h, int query, int begin, int end, int place) {
    const int D = call_.D(), queries = std::min(tile, call_.T() - query);
    const int first = first_tile_key(call_.form, query);
    const StoredRows of_query = rows_of(call_.qkv.query, b_, h, query),
                     of_grad = rows_of(call_.grad_out, b_, h, query);
    Real* const grad_query = s_.grad_query + long(place) * tile * columns_.padded();
    OpenSums<tile>& open = s_.open[place];
    if (pass_ == Pass::key_value || begin <= first) deltas(h, query, queries, open);
    if (pass_ != Pass::key_value && begin <= first)
      std::fill_n(grad_query, long(tile) * columns_.padded(), Real(0));
    if (pass_ != Pass::query) {
      transpose_rows(queries, D, of_query, s_.query_transposed);
      transpose_rows(queries, D, of_grad, s_.grad_transposed);
    }
    const WeightDropout drop(call_.dropout, b_, h, call_.T(), WeightDropout::Lanes::keys);
    for (int key = std::max(begin, first); key < std::min(end, query + queries); key += tile) {
      const long packed = key - begin, sum = key - first_sum_;
      kernels_.scores.of(queries)(of_query.data, s_.keys + packed * D, s_.scores);
      kernels_.grad_weights.of(queries)(of_grad.data, s_.values + packed * D, s_.grad_weights);
      if (key == query)
        weights_and_grad_scores<true>(h, query, queries, key, drop, open);
      else
        weights_and_grad_scores<false>(h, query, queries, key, drop, open);
      if (pass_ != Pass::key_value)
        multiply_columns(kernels_.grad_query.of(queries), columns_, s_.grad_scores,
                         s_.key_pairs + packed * columns_.padded(), grad_query);
      if (pass_ == Pass::query) continue;
      kernels_.grad_keys.of(queries)(s_.grad_transposed, s_.weight_pairs, s_.grad_values + sum * D);
      kernels_.grad_keys.of(queries)(s_.query_transposed, s_.grad_score_pairs, s_.grad_keys + sum * D);
    }
    if (pass_ == Pass::key_value || query + queries > end) return;
    const auto target = head_rows(call_.grad_qkv.query, b_, h).from(query, 0);
    copy_rows(queries, D, D, Rows{grad_query, columns_.padded()}, target);
  }

  /// Tiles of queries [from, to) of head h against all keys that they see.
  void blocks_of(int h, int from, int to) {
    for_each_block(
        call_.form, from, to, tile, key_block(call_.T(), call_.D()), [&](int begin, int end) { pack(begin, end); },
        [&](int query, int begin, int end, int place) { queries_of(h, query, begin, end, place); });
  }

  /// Writes the gradients of keys [begin, end) and their values.
  void store_key_value(int begin, int end) {
    const int D = call_.D();
    for (int key = begin; key < end; key += tile) {
      const int count = std::min(tile, end - key);
      const long sum = long(key - first_sum_) * D;
      transpose_scaled(D, count, Real(1), Rows{s_.grad_keys + sum, tile},
                       head_rows(call_.grad_qkv.key, b_, g_).from(key, 0));
      transpose_scaled(D, count, Real(1), Rows{s_.grad_values + sum, tile},
                       head_rows(call_.grad_qkv.value, b_, g_).from(key, 0));
    }
  }

 private:
  // Compiled once, and not into what calls them: where a product and a sum become one instruction, and in which
  // lanes a sum is taken, is the compiler's choice at each place, and all passes must give the same bits.

  /// Rows of grad_out times rows of out; no sums yet.
  [[gnu::noipa]] void deltas(int h, int query, int queries, OpenSums<tile>& open) {
    const auto out = head_rows(call_.out, b_, h).from(query, 0),
               grad = head_rows(call_.grad_out, b_, h).from(query, 0);
    const int D = call_.D();
    for (int q = 0; q < queries; ++q) {
      const BFloat16 *x = out.at(q), *y = grad.at(q);
      Real dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int d = 0; d < D; ++d) dot += x[d] * y[d];
      open.delta[q] = dot;
      open.sum[q] = 0;
    }
  }

  /// From scores and d loss / d weights: the weights after dropout, in pairs of queries, and d loss / d scores with
  /// the factor `scale`, in such pairs and by rows; 0 where a query does not see the key, and from `queries` on.
  /// The `last` tile of keys has a delta of its own, with which all d loss / d scores of a query add up to 0.
  template <bool last>
  [[gnu::noipa]] void weights_and_grad_scores(int h, int query, int queries, int key, const WeightDropout& drop,
                                              OpenSums<tile>& open) {
    const IntegerVector lanes = lane_indices();
    const Real factor = call_.form.scale * log2_e, scale = call_.form.scale;
    struct Weighted {
      Vector weight, kept, grad_weight;
    };
    const auto weigh = [&](int q, int k) __attribute__((always_inline)) -> Weighted {
      const int t = query + q;
      Weighted x{exp2(factor * load(s_.scores + q * tile + k) - log2_e * call_.lse(b_, h, t)),
                 {},
                 load(s_.grad_weights + q * tile + k)};
      if (const int first = call_.form.first_key(t); key + k + vector_width > t + 1 || key + k < first) {
        const IntegerVector visible = (lanes <= LaneInteger(t - key - k)) & (lanes >= LaneInteger(first - key - k));
        x.weight = visible ? x.weight : Vector{};
        x.grad_weight = visible ? x.grad_weight : Vector{};
      }
      x.kept = x.weight;
      if (drop.active()) {
        const Vector dropped = drop.factors(t, key + k);
        x.grad_weight *= dropped;
        x.kept *= dropped;
      }
      return x;
    };
    const auto store_pairs = [](Words first, Words second, BFloat16* to) __attribute__((always_inline)) {
      const Words pairs = pairs_of(first, second);
      __builtin_memcpy(to, &pairs, sizeof pairs);
    };
    const auto store_grad_scores = [&](int q, int k, Vector first, Vector second) __attribute__((always_inline)) {
      const Words words[] = {rounded_words(scale * first), rounded_words(scale * second)};
      store_pairs(words[0], words[1], s_.grad_score_pairs + q * tile + 2 * k);
      for (const int next : {0, 1}) {
        const HalfWords upper = __builtin_convertvector(words[next] >> 16, HalfWords);
        __builtin_memcpy(s_.grad_scores + (q + next) * tile + k, &upper, sizeof upper);
      }
    };
    const auto sum = [](Vector x) { return fold_lanes(x, [](Vector a, Vector b) { return a + b; }); };
    for (int q = 0; q < queries; q += 2) {
      Vector total[2] = {}, weighted[2] = {};
      for (int k = 0; k < tile; k += vector_width) {
        Vector kept[2] = {}, grad_score[2] = {};
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
          if (q + i >= queries) continue;
          const Weighted x = weigh(q + i, k);
          kept[i] = x.kept;
          if (last) {
            store(s_.scores + (q + i) * tile + k, x.weight);
            store(s_.grad_weights + (q + i) * tile + k, x.grad_weight);
            total[i] += x.weight;
            weighted[i] += x.weight * x.grad_weight;
          } else {
            grad_score[i] = x.weight * (x.grad_weight - open.delta[q + i]);
            weighted[i] += grad_score[i];
          }
        }
        store_pairs(rounded_words(kept[0]), rounded_words(kept[1]), s_.weight_pairs + q * tile + 2 * k);
        if (!last) store_grad_scores(q, k, grad_score[0], grad_score[1]);
      }
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        if (pass_ == Pass::key_value || q + i >= queries) continue;
        open.sum[q + i] += sum(weighted[i]);
        if (!last) continue;
        const Real weights = sum(total[i]);
        call_.delta(b_, h, query + q + i) =
            weights > least_closing_weight ? open.sum[q + i] / weights : open.delta[q + i];
      }
      if (!last) continue;
      for (int k = 0; k < tile; k += vector_width) {
        Vector grad_score[2] = {};
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i)
          if (q + i < queries)
            grad_score[i] = load(s_.scores + (q + i) * tile + k) *
                            (load(s_.grad_weights + (q + i) * tile + k) - call_.delta(b_, h, query + q + i));
        store_grad_scores(q, k, grad_score[0], grad_score[1]);
      }
    }
  }

  Pass pass_;
  const BackwardCall& call_;
  const BackwardKernels& kernels_;
  HeadColumns columns_;
  int b_, g_, first_sum_;
  Pieces pieces_;
  BackwardScratch s_;
};

}  // namespace

bool brgemm_attention_backward(const ExecSpace& exec, const BackwardCall& call) {
  const int T = call.T(), D = call.D(), G = call.G(), shared = call.shared();
  if (D % 2 != 0) return false;
  const BackwardKernels kernels(call);
  if (!kernels.found()) return false;
  const std::size_t B = call.out.extent(0);
  const Held head = Held::head(T, D, tile), of_queries = Held::tile_of_queries(T, D),
             of_keys = Held::tile_of_keys();
  if (const std::size_t bytes = bytes_of<BackwardScratch>(D, head);
      one_task_per_head(exec.concurrency(), long(B) * G, bytes)) {
    for_each_task("dekoder::causal_attention_backward::head", exec, B, G, 1, bytes,
                  [&](int b, int g, int, void* memory) {
                    BackwardTask task(Pass::all, call, kernels, b, g, 0, head, memory);
                    for (int h = g * shared; h < (g + 1) * shared; ++h) task.blocks_of(h, 0, T);
                    task.store_key_value(0, T);
                  });
    return true;
  }
  const int tiles = tiles_of(T, tile);
  for_each_task("dekoder::causal_attention_backward::query", exec, B, call.H(), tiles,
                bytes_of<BackwardScratch>(D, of_queries), [&](int b, int h, int i, void* memory) {
                  const int query = (tiles - 1 - i) * tile;  // the longest first
                  BackwardTask task(Pass::query, call, kernels, b, h / shared, 0, of_queries, memory);
                  task.blocks_of(h, query, std::min(query + tile, T));
                });
  for_each_task("dekoder::causal_attention_backward::key_value", exec, B, G, tiles,
                bytes_of<BackwardScratch>(D, of_keys), [&](int b, int g, int j, void* memory) {
                  const int begin = j * tile, end = std::min(begin + tile, T);
                  BackwardTask task(Pass::key_value, call, kernels, b, g, begin, of_keys, memory);
                  task.pack(begin, end);
                  for (int h = g * shared; h < (g + 1) * shared; ++h)
                    for (int query = begin; query < call.form.end_of_queries(end - 1, T); query += tile)
                      task.queries_of(h, query, begin, end, 0);
                  task.store_key_value(begin, end);
                });
  return true;
}

std::size_t brgemm_attention_scratch_bytes(int context, int head_size) {
  if (head_size % 2 != 0 || Brgemm::find({tile, tile, head_size, head_size, tile, tile, false}) == nullptr)
    return 0;
  return std::max(
             bytes_of<ForwardScratch>(head_size, most_tiles_of_task(context, tile), key_block(context, head_size)),
             bytes_of<BackwardScratch>(head_size, Held::head(context, head_size, tile))) +
         64;
}

}  // namespace dekoder::host

#else

namespace dekoder::host {

bool brgemm_attention(const ExecSpace&, const ForwardCall&) {
  return false;
}
bool brgemm_attention_backward(const ExecSpace&, const BackwardCall&) {
  return false;
}
std::size_t brgemm_attention_scratch_bytes(int, int) {
  return 0;
}

}  // namespace dekoder::host

#endif
