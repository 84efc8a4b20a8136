// SPDX-License-Identifier: Apache-2.0
// Attention of bf16 on CPUs with products of it. A task packs the keys and values of a head once, as the kernels
// read them; scores, weights and their gradients stay in the task's cache, queries down and keys across, so that
// two neighbouring rows make the pairs that a kernel takes as its right factor.
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
constexpr int tile = 64;
static_assert(tile == brgemm_columns && tile % vector_width == 0);

constexpr int tiles_of(int tokens) {
  return (tokens + tile - 1) / tile;
}

/// The first tile of keys that query t sees one of.
int first_tile(const AttentionForm& form, int t) {
  return form.first_key(t) / tile;
}

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

template <class Scratch>
std::size_t bytes_of(int tokens, int D) {
  Pieces none(nullptr);
  Scratch(none, tokens, D);
  return none.used();
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

  ForwardKernels(int T, int D, long query_row)
      : scores(T, [&](int rows) { return BrgemmShape{rows, tile, D, query_row, tile, padded_keys(T), false}; }),
        first(T, [&](int rows) { return weighted_values(rows, T, D, false); }),
        next(T, [&](int rows) { return weighted_values(rows, T, D, true); }) {}
  bool found() const { return scores.found() && first.found() && next.found(); }

  static int padded_keys(int T) { return tiles_of(T) * tile; }

 private:
  static BrgemmShape weighted_values(int rows, int T, int D, bool accumulate) {
    const HeadColumns columns(D);
    return {rows, columns.block, tile, padded_keys(T), columns.block, columns.padded(), accumulate};
  }
};

/// Of a task: the packed keys and values of a head, one tile of queries against all keys.
struct ForwardScratch {
  BFloat16 *keys, *values;  ///< a tile: (D / 2, tile, 2); (blocks, tile / 2, block, 2)
  Real* scores;             ///< (tile, padded keys)
  BFloat16* weights;        ///< (tile, padded keys)
  Real* out;                ///< (tile, padded D)

  ForwardScratch(Pieces& pieces, int T, int D)
      : keys(pieces.take<BFloat16>(tiles_of(T) * tile, D)),
        values(pieces.take<BFloat16>(tiles_of(T) * tile, HeadColumns(D).padded())),
        scores(pieces.take<Real>(tile, tiles_of(T) * tile)),
        weights(pieces.take<BFloat16>(tile, tiles_of(T) * tile)),
        out(pieces.take<Real>(tile, HeadColumns(D).padded())) {}
};

struct RowSoftmax {
  Real largest, total;
};

/// weights = exp2(factor (scores - largest)) times dropout's factors of the keys [first, visible), 0 from `begin`
/// to there and from there to `keys`; total is their sum before dropout.
RowSoftmax softmax_row(const Real* scores, int query, int begin, int first, int visible, int keys, Real factor,
                       const WeightDropout& drop, BFloat16* weights) {
  const IntegerVector lanes = lane_indices();
  const Vector none = broadcast(-std::numeric_limits<Real>::infinity());
  const auto visible_scores = [&](int k) {
    const Vector x = load(scores + k);
    if (k < first) return (lanes >= LaneInteger(first - k)) & (lanes < LaneInteger(visible - k)) ? x : none;
    return k + vector_width <= visible ? x : lanes < LaneInteger(visible - k) ? x : none;
  };
  const int start = first / vector_width * vector_width;
  Vector largest = none;
  for (int k = start; k < visible; k += vector_width) {
    const Vector x = visible_scores(k);
    largest = x > largest ? x : largest;
  }
  const Real most = fold_lanes(largest, [](Vector x, Vector y) { return x > y ? x : y; });
  Vector total{};
  int k = begin;
  for (; k < start; k += vector_width) store(weights + k, Vector{});
  for (; k < visible; k += vector_width) {
    Vector weight = exp2(factor * (visible_scores(k) - most));
    total += weight;
    if (drop.active()) weight *= drop.factors(query, k);
    store(weights + k, weight);
  }
  for (; k < keys; k += vector_width) store(weights + k, Vector{});
  return {most, fold_lanes(total, [](Vector x, Vector y) { return x + y; })};
}

/// Tiles [first, last) of the queries of head h, whose keys and values are those of head g.
void forward_tiles(const ConstHeads& qkv, int b, int h, int g, int first, int last, AttentionForm form,
                   const Dropout& dropout, const ForwardKernels& kernels, const StoredTensor4& out,
                   const MasterTensor3& lse, const ForwardScratch& s) {
  const int T = qkv.query.extent_int(1), D = qkv.query.extent_int(3), row = ForwardKernels::padded_keys(T);
  const HeadColumns columns(D);
  const auto keys = [&](int j) { return s.keys + long(j) * tile * D; };
  const auto values = [&](int j) { return s.values + long(j) * tile * columns.padded(); };
  const WeightDropout drop(dropout, b, h, T, WeightDropout::Lanes::keys);
  for (int j = first_tile(form, first * tile); j < last; ++j) {
    const int count = std::min(tile, T - j * tile);
    pack_transposed(count, D, rows_of(qkv.key, b, g, j * tile), keys(j));
    pack_pairs(count, D, columns, rows_of(qkv.value, b, g, j * tile), values(j));
  }
  for (int i = first; i < last; ++i) {
    const int query = i * tile, queries = std::min(tile, T - query);
    const int seen = first_tile(form, query);
    for (int j = seen; j <= i; ++j)
      kernels.scores.of(queries)(rows_of(qkv.query, b, h, query).data, keys(j), s.scores + j * tile);
    std::array<Real, tile> inverse;
    for (int q = 0; q < queries; ++q) {
      const auto [largest, total] =
          softmax_row(s.scores + long(q) * row, query + q, seen * tile, form.first_key(query + q), query + q + 1,
                      (i + 1) * tile, form.scale * log2_e, drop, s.weights + long(q) * row);
      inverse[std::size_t(q)] = Real(1) / total;
      lse(b, h, query + q) = form.scale * largest + std::log(total);
    }
    for (int j = seen; j <= i; ++j)
      multiply_columns((j == seen ? kernels.first : kernels.next).of(queries), columns, s.weights + j * tile,
                       values(j), s.out);
    const auto target = head_rows(out, b, h).from(query, 0);
    for (int q = 0; q < queries; ++q) {
      const Real* sum = s.out + long(q) * columns.padded();
      const Real factor = inverse[std::size_t(q)];
      BFloat16* to = target.at(q);
#pragma omp simd
      for (int d = 0; d < D; ++d) to[d] = sum[d] * factor;
    }
  }
  release_brgemm();
}

/// Whether heads alone keep the threads busy: then a task is a whole head.
bool heads_suffice(long heads, long threads) {
  return heads % threads == 0 || heads >= 8 * threads;
}

}  // namespace

bool brgemm_attention(const ExecSpace& exec, const ConstHeads& qkv, AttentionForm form, const Dropout& dropout,
                      const StoredTensor4& out, const MasterTensor3& lse) {
  const int T = out.extent_int(1), H = out.extent_int(2), D = out.extent_int(3), shared = H / qkv.key.extent_int(2);
  if (D % 2 != 0) return false;
  const ForwardKernels kernels(T, D, long(qkv.query.stride(1)));
  if (!kernels.found()) return false;
  const std::size_t heads = out.extent(0) * std::size_t(H);
  const int tiles = tiles_of(T), tasks = heads_suffice(long(heads), exec.concurrency()) ? 1 : tiles;
  for_each_task("dekoder::causal_attention", exec, out.extent(0), H, tasks, bytes_of<ForwardScratch>(T, D),
                [&](int b, int h, int i, void* memory) {
                  const int first = tasks - 1 - i;  // the longest first
                  Pieces pieces(memory);
                  forward_tiles(qkv, b, h, h / shared, first, tasks == 1 ? tiles : first + 1, form, dropout,
                                kernels, out, lse, ForwardScratch(pieces, T, D));
                });
  return true;
}

namespace {

/// `keys_row` is the row of the sums of key and value gradients, which are kept transposed.
struct BackwardKernels {
  RowKernels scores, grad_weights, grad_query, grad_keys;

  BackwardKernels(const BackwardCall& call, int keys_row)
      : scores(call.T(), [&](int rows) { return against_keys(rows, call.D(), long(call.qkv.query.stride(1))); }),
        grad_weights(call.T(),
                     [&](int rows) { return against_keys(rows, call.D(), long(call.grad_out.stride(1))); }),
        grad_query(call.T(),
                   [&](int rows) {
                     const HeadColumns columns(call.D());
                     return BrgemmShape{rows, columns.block, tile, tile, columns.block, columns.padded(), true};
                   }),
        grad_keys(call.T(), [&](int rows) {
          return BrgemmShape{call.D(), tile, (rows + 1) / 2 * 2, tile, tile, keys_row, true};
        }) {}
  bool found() const { return scores.found() && grad_weights.found() && grad_query.found() && grad_keys.found(); }

 private:
  static BrgemmShape against_keys(int rows, int D, long row) { return {rows, tile, D, row, tile, tile, false}; }
};

/// Of a task that has `keys_held` keys of a head.
struct BackwardScratch {
  BFloat16 *keys, *values;                       ///< a tile: (D / 2, tile, 2)
  BFloat16* key_pairs;                           ///< a tile: (blocks, tile / 2, block, 2)
  Real *grad_keys, *grad_values;                 ///< (D, keys_held): transposed
  Real *scores, *grad_weights;                   ///< (tile, tile)
  BFloat16 *weight_pairs, *grad_score_pairs;     ///< (tile / 2, tile, 2)
  BFloat16* grad_scores;                         ///< (tile, tile)
  BFloat16 *query_transposed, *grad_transposed;  ///< (D, tile)
  Real* grad_query;                              ///< (tile, padded D)

  BackwardScratch(Pieces& p, int keys_held, int D)
      : keys(p.take<BFloat16>(keys_held, D)),
        values(p.take<BFloat16>(keys_held, D)),
        key_pairs(p.take<BFloat16>(keys_held, HeadColumns(D).padded())),
        grad_keys(p.take<Real>(D, keys_held)),
        grad_values(p.take<Real>(D, keys_held)),
        scores(p.take<Real>(tile, tile)),
        grad_weights(p.take<Real>(tile, tile)),
        weight_pairs(p.take<BFloat16>(tile, tile)),
        grad_score_pairs(p.take<BFloat16>(tile, tile)),
        grad_scores(p.take<BFloat16>(tile, tile)),
        query_transposed(p.take<BFloat16>(D, tile)),
        grad_transposed(p.take<BFloat16>(D, tile)),
        grad_query(p.take<Real>(tile, HeadColumns(D).padded())) {}
};

/// One task: keys from key_begin on of the head of keys and values g of sequence b.
template <Pass pass>
class BackwardTask {
 public:
  BackwardTask(const BackwardCall& call, const BackwardKernels& kernels, int b, int g, int key_begin, int keys_held,
               void* memory)
      : call_(call),
        kernels_(kernels),
        columns_(call.D()),
        b_(b),
        g_(g),
        key_begin_(key_begin),
        keys_held_(keys_held),
        pieces_(memory),
        s_(pieces_, keys_held, call.D()) {
    const int D = call.D(), end = std::min(call.T(), key_begin + keys_held);
    for (int key = key_begin; key < end; key += tile) {
      const int count = std::min(tile, end - key);
      const long place = key - key_begin;
      pack_transposed(count, D, rows_of(call.qkv.key, b, g, key), s_.keys + place * D);
      pack_transposed(count, D, rows_of(call.qkv.value, b, g, key), s_.values + place * D);
      if (pass != Pass::key_value)
        pack_pairs(count, D, columns_, rows_of(call.qkv.key, b, g, key), s_.key_pairs + place * columns_.padded());
    }
    if (pass == Pass::query) return;
    std::fill_n(s_.grad_keys, long(D) * keys_held, Real(0));
    std::fill_n(s_.grad_values, long(D) * keys_held, Real(0));
  }
  ~BackwardTask() { release_brgemm(); }
  BackwardTask(const BackwardTask&) = delete;

  /// A tile of queries of head h against the keys that it sees of this task's.
  void queries_of(int h, int query) {
    const int D = call_.D(), queries = std::min(tile, call_.T() - query);
    const StoredRows of_query = rows_of(call_.qkv.query, b_, h, query),
                     of_grad = rows_of(call_.grad_out, b_, h, query);
    if (pass != Pass::key_value) {
      deltas(h, query, queries);
      std::fill_n(s_.grad_query, long(tile) * columns_.padded(), Real(0));
    }
    if (pass != Pass::query) {
      transpose_rows(queries, D, of_query, s_.query_transposed);
      transpose_rows(queries, D, of_grad, s_.grad_transposed);
    }
    const WeightDropout drop(call_.dropout, b_, h, call_.T(), WeightDropout::Lanes::keys);
    for (int key = std::max(key_begin_, first_tile(call_.form, query) * tile);
         key < std::min(key_begin_ + keys_held_, query + queries); key += tile) {
      const long place = key - key_begin_;
      kernels_.scores.of(queries)(of_query.data, s_.keys + place * D, s_.scores);
      kernels_.grad_weights.of(queries)(of_grad.data, s_.values + place * D, s_.grad_weights);
      weights_and_grad_scores(h, query, queries, key, drop);
      if (pass != Pass::key_value)
        multiply_columns(kernels_.grad_query.of(queries), columns_, s_.grad_scores,
                         s_.key_pairs + place * columns_.padded(), s_.grad_query);
      if (pass == Pass::query) continue;
      kernels_.grad_keys.of(queries)(s_.grad_transposed, s_.weight_pairs, s_.grad_values + place);
      kernels_.grad_keys.of(queries)(s_.query_transposed, s_.grad_score_pairs, s_.grad_keys + place);
    }
    if (pass == Pass::key_value) return;
    const auto target = head_rows(call_.grad_qkv.query, b_, h).from(query, 0);
    copy_rows(queries, D, D, Rows{s_.grad_query, columns_.padded()}, target);
  }

  /// Writes the gradients of the task's keys and values.
  void store_key_value() {
    const int D = call_.D(), count = std::min(keys_held_, call_.T() - key_begin_);
    const auto keys = head_rows(call_.grad_qkv.key, b_, g_).from(key_begin_, 0);
    const auto values = head_rows(call_.grad_qkv.value, b_, g_).from(key_begin_, 0);
    transpose_scaled(D, count, Real(1), Rows{s_.grad_keys, keys_held_}, keys);
    transpose_scaled(D, count, Real(1), Rows{s_.grad_values, keys_held_}, values);
  }

 private:
  /// Rows of grad_out times rows of out.
  void deltas(int h, int query, int queries) {
    const auto out = head_rows(call_.out, b_, h).from(query, 0),
               grad = head_rows(call_.grad_out, b_, h).from(query, 0);
    const int D = call_.D();
    for (int q = 0; q < queries; ++q) {
      const BFloat16 *x = out.at(q), *y = grad.at(q);
      Real dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int d = 0; d < D; ++d) dot += x[d] * y[d];
      call_.delta(b_, h, query + q) = dot;
    }
  }

  /// From scores and d loss / d weights: the weights after dropout, in pairs of queries, and d loss / d scores with
  /// the factor `scale`, in such pairs and by rows; 0 where a query does not see the key, and from `queries` on.
  void weights_and_grad_scores(int h, int query, int queries, int key, const WeightDropout& drop) {
    const IntegerVector lanes = lane_indices();
    const Real factor = call_.form.scale * log2_e, scale = call_.form.scale;
    struct Row {
      Words weight, grad_score;
    };
    const auto row = [&](int q, int k) __attribute__((always_inline)) -> Row {
      if (q >= queries) return {Words{}, Words{}};
      const int t = query + q;
      Vector weight = exp2(factor * load(s_.scores + q * tile + k) - log2_e * call_.lse(b_, h, t));
      Vector grad_weight = load(s_.grad_weights + q * tile + k), kept = weight;
      if (drop.active()) {
        const Vector dropped = drop.factors(t, key + k);
        grad_weight *= dropped;
        kept *= dropped;
      }
      Vector grad_score = scale * weight * (grad_weight - call_.delta(b_, h, t));
      if (const int first = call_.form.first_key(t); key + k + vector_width > t + 1 || key + k < first) {
        const IntegerVector visible = (lanes <= LaneInteger(t - key - k)) & (lanes >= LaneInteger(first - key - k));
        kept = visible ? kept : Vector{};
        grad_score = visible ? grad_score : Vector{};
      }
      return {rounded_words(kept), rounded_words(grad_score)};
    };
    for (int q = 0; q < queries; q += 2)
      for (int k = 0; k < tile; k += vector_width) {
        const Row first = row(q, k), second = row(q + 1, k);
        const Words weights = pairs_of(first.weight, second.weight),
                    gradients = pairs_of(first.grad_score, second.grad_score);
        __builtin_memcpy(s_.weight_pairs + q * tile + 2 * k, &weights, sizeof weights);
        __builtin_memcpy(s_.grad_score_pairs + q * tile + 2 * k, &gradients, sizeof gradients);
        const HalfWords upper = __builtin_convertvector(first.grad_score >> 16, HalfWords),
                        lower = __builtin_convertvector(second.grad_score >> 16, HalfWords);
        __builtin_memcpy(s_.grad_scores + q * tile + k, &upper, sizeof upper);
        __builtin_memcpy(s_.grad_scores + (q + 1) * tile + k, &lower, sizeof lower);
      }
  }

  const BackwardCall& call_;
  const BackwardKernels& kernels_;
  HeadColumns columns_;
  int b_, g_, key_begin_, keys_held_;
  Pieces pieces_;
  BackwardScratch s_;
};

/// One task per head costs 5 products a tile, two passes 7, on all threads also where heads are few.
bool one_task_per_head(long threads, long heads, int T, int D) {
  constexpr std::size_t most_bytes = std::size_t{64} << 20;
  const long rounds = (heads + threads - 1) / threads;
  return 5 * rounds * threads <= 7 * heads && bytes_of<BackwardScratch>(tiles_of(T) * tile, D) <= most_bytes;
}

}  // namespace

bool brgemm_attention_backward(const ExecSpace& exec, const BackwardCall& call) {
  const int T = call.T(), D = call.D(), H = call.H(), G = call.G(), shared = call.shared();
  if (D % 2 != 0) return false;
  const int tiles = tiles_of(T), all_keys = tiles * tile;
  const BackwardKernels whole(call, all_keys), of_a_tile(call, tile);
  if (!whole.found() || !of_a_tile.found()) return false;
  const std::size_t B = call.out.extent(0);
  if (one_task_per_head(exec.concurrency(), long(B) * G, T, D)) {
    for_each_task("dekoder::causal_attention_backward::head", exec, B, G, 1, bytes_of<BackwardScratch>(all_keys, D),
                  [&](int b, int g, int, void* memory) {
                    BackwardTask<Pass::all> of_head(call, whole, b, g, 0, all_keys, memory);
                    for (int h = g * shared; h < (g + 1) * shared; ++h)
                      for (int i = 0; i < tiles; ++i) of_head.queries_of(h, i * tile);
                    of_head.store_key_value();
                  });
    return true;
  }
  for_each_task("dekoder::causal_attention_backward::query", exec, B, H, tiles,
                bytes_of<BackwardScratch>(all_keys, D), [&](int b, int h, int task, void* memory) {
                  const int i = tiles - 1 - task, begin = first_tile(call.form, i * tile) * tile;
                  BackwardTask<Pass::query> of_tile(call, whole, b, h / shared, begin, (i + 1) * tile - begin,
                                                    memory);
                  of_tile.queries_of(h, i * tile);
                });
  for_each_task("dekoder::causal_attention_backward::key_value", exec, B, G, tiles,
                bytes_of<BackwardScratch>(tile, D), [&](int b, int g, int j, void* memory) {
                  BackwardTask<Pass::key_value> of_keys(call, of_a_tile, b, g, j * tile, tile, memory);
                  const int end = call.form.end_of_queries(std::min((j + 1) * tile, T) - 1, T);
                  for (int h = g * shared; h < (g + 1) * shared; ++h)
                    for (int i = j; i * tile < end; ++i) of_keys.queries_of(h, i * tile);
                  of_keys.store_key_value();
                });
  return true;
}

std::size_t brgemm_attention_scratch_bytes(int context, int head_size) {
  if (head_size % 2 != 0 || Brgemm::find({tile, tile, head_size, head_size, tile, tile, false}) == nullptr)
    return 0;
  return std::max(bytes_of<ForwardScratch>(context, head_size),
                  bytes_of<BackwardScratch>(tiles_of(context) * tile, head_size)) +
         64;
}

}  // namespace dekoder::host

#else

namespace dekoder::host {

bool brgemm_attention(const ExecSpace&, const ConstHeads&, AttentionForm, const Dropout&, const StoredTensor4&,
                      const MasterTensor3&) {
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
