// SPDX-License-Identifier: Apache-2.0
// Causal attention for CPUs: tiles of 32 queries by 64 keys that stay in the first-level cache.
#include "kernels/attention.hpp"

#if !defined(DEKODER_BACKEND_CUDA)

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/host_tile.hpp"
#include "kernels/vector_math.hpp"

namespace dekoder {

namespace {

using host::padded;
using host::Strided;
using host::tile_product;

constexpr int query_tile = 32;
constexpr int key_tile = 64;

/// Working memory of the threads: grows at the first call of a larger shape and is kept, so that a step allocates nothing.
class ThreadScratch {
 public:
  /// Room for `elements` per thread. Not from within a parallel region.
  void reserve(int threads, std::size_t elements) {
    if (parts_.size() >= std::size_t(threads) && elements <= elements_) return;
    elements_ = std::max(elements, elements_);
    parts_.assign(std::size_t(std::max(threads, int(parts_.size()))), std::vector<Real>());
    for (auto& part : parts_) part.resize(elements_ + 64 / sizeof(Real));
  }
  /// This thread's part, aligned to 64 bytes.
  Real* mine() {
    void* place = parts_[std::size_t(omp_get_thread_num())].data();
    std::size_t space = (elements_ + 64 / sizeof(Real)) * sizeof(Real);
    return static_cast<Real*>(std::align(64, elements_ * sizeof(Real), place, space));
  }

 private:
  std::vector<std::vector<Real>> parts_;
  std::size_t elements_ = 0;
};

ThreadScratch& thread_scratch() {
  static ThreadScratch scratch;
  return scratch;
}

/// Hands out consecutive pieces of a thread's scratch.
struct Pieces {
  Real* next;
  Real* take(int rows, int columns) {
    Real* piece = next;
    next += std::size_t(rows) * std::size_t(padded(columns));
    return piece;
  }
};

/// One head of one sequence of a (B,T,3,H,D) or (B,T,H,D) tensor: T rows of D at a fixed distance.
struct HeadRows {
  const Real* data;
  long row;
};

/// target(rows, padded(D)) = factor * source rows [begin, begin + rows), zeros in the padding.
void pack_rows(HeadRows source, int begin, int count, int D, Real factor, Real* target) {
  const int width = padded(D);
  for (int i = 0; i < count; ++i) {
    const Real* from = source.data + (begin + i) * source.row;
    Real* to = target + long(i) * width;
#pragma omp simd
    for (int d = 0; d < D; ++d) to[d] = factor * from[d];
    for (int d = D; d < width; ++d) to[d] = 0;
  }
}

/// target(D, key_tile) = transpose of source rows [begin, begin + count), zeros beyond count.
void pack_transposed(HeadRows source, int begin, int count, int D, Real* target) {
  for (int s = 0; s < key_tile; ++s) {
    if (s < count) {
      const Real* from = source.data + (begin + s) * source.row;
      for (int d = 0; d < D; ++d) target[d * key_tile + s] = from[d];
    } else {
      for (int d = 0; d < D; ++d) target[d * key_tile + s] = 0;
    }
  }
}

/// Shapes and places of one call, the same for forward and backward.
struct HeadLayout {
  int B, T, H, D;
  ConstTensor5 qkv;
  HeadRows part(int b, int which, int h) const { return {&qkv(b, 0, which, h, 0), long(3) * H * D}; }
};

/// Keys that a tile of queries [.., query_end) sees of the tile that begins at key_begin.
int visible_keys(int query_end, int key_begin) { return std::min(key_tile, query_end - key_begin); }

/// Multiplies the weights of row t by their dropout factors.
void drop_row(const Dropout& dropout, const RandomStream& stream, int t, int T, int key_begin, int count, Real* weights) {
  const std::uint64_t first = std::uint64_t(t) * std::uint64_t(T) + std::uint64_t(key_begin);
#pragma omp simd
  for (int s = 0; s < count; ++s) weights[s] *= dropout.factor(stream, first + std::uint64_t(s));
}

/// Softmax of one tile of scores against the running maximum and sum of each row; scores become weights and the output
/// rows collected so far are rescaled.
void online_softmax(int rows, int first_query, int key_begin, int columns, int D, Real* scores, Real* largest, Real* total,
                    Real* out) {
  const int width = padded(D);
  for (int i = 0; i < rows; ++i) {
    Real* row = scores + i * key_tile;
    const int valid = std::min(columns, first_query + i - key_begin + 1);
    for (int s = std::max(valid, 0); s < columns; ++s) row[s] = -std::numeric_limits<Real>::infinity();
    Real tile_largest = largest[i];
#pragma omp simd reduction(max : tile_largest)
    for (int s = 0; s < columns; ++s) tile_largest = row[s] > tile_largest ? row[s] : tile_largest;
    Real tile_total = 0;
#pragma omp simd reduction(+ : tile_total)
    for (int s = 0; s < columns; ++s) {
      row[s] = fast_exp(row[s] - tile_largest);
      tile_total += row[s];
    }
    const Real correction = fast_exp(largest[i] - tile_largest);
    total[i] = total[i] * correction + tile_total;
    largest[i] = tile_largest;
    if (correction == Real(1)) continue;
    Real* out_row = out + long(i) * width;
#pragma omp simd
    for (int d = 0; d < width; ++d) out_row[d] *= correction;
  }
}

/// Output and lse of the queries [begin, end) of one head.
void forward_head(const HeadLayout& layout, int b, int h, int begin, int end, Real scale, const Dropout& dropout,
                  const Tensor4& out, const Tensor3& lse, Real* scratch) {
  const int D = layout.D, T = layout.T, width = padded(D);
  Pieces pieces{scratch};
  Real* keys = pieces.take((end + key_tile - 1) / key_tile * D, key_tile);
  Real* values = pieces.take(end, D);
  Real* query = pieces.take(query_tile, D);
  Real* scores = pieces.take(query_tile, key_tile);
  Real* collected = pieces.take(query_tile, D);
  Real largest[query_tile], total[query_tile];
  for (int key = 0; key < end; key += key_tile)
    pack_transposed(layout.part(b, 1, h), key, std::min(key_tile, T - key), D, keys + long(key / key_tile) * D * key_tile);
  pack_rows(layout.part(b, 2, h), 0, end, D, Real(1), values);
  const RandomStream stream = dropout.sample(b).child(std::uint64_t(h));

  for (int first = begin; first < end; first += query_tile) {
    const int rows = std::min(query_tile, end - first);
    pack_rows(layout.part(b, 0, h), first, rows, D, scale, query);
    std::fill(largest, largest + rows, -std::numeric_limits<Real>::infinity());
    std::fill(total, total + rows, Real(0));
    std::fill(collected, collected + long(rows) * width, Real(0));
    for (int key = 0; key < first + rows; key += key_tile) {
      const int seen = visible_keys(first + rows, key), columns = padded(seen);
      tile_product<false>(rows, columns, D, Strided{query, width, 1}, keys + long(key / key_tile) * D * key_tile, key_tile,
                          scores, key_tile);
      online_softmax(rows, first, key, columns, D, scores, largest, total, collected);
      if (dropout.active())
        for (int i = 0; i < rows; ++i) drop_row(dropout, stream, first + i, T, key, seen, scores + i * key_tile);
      tile_product<true>(rows, width, seen, Strided{scores, key_tile, 1}, values + long(key) * width, width, collected,
                         width);
    }
    for (int i = 0; i < rows; ++i) {
      const Real factor = Real(1) / total[i];
      Real* out_row = &out(b, first + i, h, 0);
#pragma omp simd
      for (int d = 0; d < D; ++d) out_row[d] = factor * collected[long(i) * width + d];
      lse(b, h, first + i) = largest[i] + std::log(total[i]);
    }
  }
}

/// What the backward pass of one head keeps in its thread's scratch: packed inputs and gradients in (T, padded(D)).
struct BackwardHead {
  Real *query, *key, *value, *grad_out, *grad_query;
  Real *key_transposed, *value_transposed, *weights, *grad_scores, *grad_key, *grad_value;

  BackwardHead(Pieces pieces, int T, int D)
      : query(pieces.take(T, D)),
        key(pieces.take(T, D)),
        value(pieces.take(T, D)),
        grad_out(pieces.take(T, D)),
        grad_query(pieces.take(T, D)),
        key_transposed(pieces.take(D, key_tile)),
        value_transposed(pieces.take(D, key_tile)),
        weights(pieces.take(query_tile, key_tile)),
        grad_scores(pieces.take(query_tile, key_tile)),
        grad_key(pieces.take(key_tile, D)),
        grad_value(pieces.take(key_tile, D)) {}
};

/// Recomputes the weights of one tile from lse and turns d loss/d weights into d loss/d scores. `kept` are the weights
/// after dropout (for the gradient of the values).
void backward_tile_rows(const Tensor3& delta, const ConstTensor3& lse, int b, int h, int first, int rows, int key_begin,
                        int seen, int columns, int T, const Dropout& dropout, const RandomStream& stream, Real* weights,
                        Real* grad_scores) {
  for (int i = 0; i < rows; ++i) {
    const int t = first + i, valid = std::min(seen, t - key_begin + 1);
    Real* weight_row = weights + i * key_tile;
    Real* grad_row = grad_scores + i * key_tile;
    const Real row_lse = lse(b, h, t), row_delta = delta(b, h, t);
    for (int s = std::max(valid, 0); s < columns; ++s) weight_row[s] = -std::numeric_limits<Real>::infinity();
    if (dropout.active()) {
      const std::uint64_t at = std::uint64_t(t) * std::uint64_t(T) + std::uint64_t(key_begin);
      for (int s = 0; s < columns; ++s) {
        const Real factor = dropout.factor(stream, at + std::uint64_t(s));
        const Real weight = fast_exp(weight_row[s] - row_lse);
        grad_row[s] = weight * (grad_row[s] * factor - row_delta);
        weight_row[s] = weight * factor;
      }
      continue;
    }
#pragma omp simd
    for (int s = 0; s < columns; ++s) {
      const Real weight = fast_exp(weight_row[s] - row_lse);
      grad_row[s] = weight * (grad_row[s] - row_delta);
      weight_row[s] = weight;
    }
  }
}

void backward_head(const HeadLayout& layout, int b, int h, const ConstTensor4& out, const ConstTensor4& grad_out,
                   const ConstTensor3& lse, Real scale, const Dropout& dropout, const Tensor3& delta,
                   const Tensor5& grad_qkv, Real* scratch) {
  const int D = layout.D, T = layout.T, width = padded(D);
  const long out_row = long(layout.H) * D;
  const BackwardHead s(Pieces{scratch}, T, D);
  pack_rows(layout.part(b, 0, h), 0, T, D, scale, s.query);
  pack_rows(layout.part(b, 1, h), 0, T, D, Real(1), s.key);
  pack_rows(layout.part(b, 2, h), 0, T, D, Real(1), s.value);
  pack_rows({&grad_out(b, 0, h, 0), out_row}, 0, T, D, Real(1), s.grad_out);
  std::fill(s.grad_query, s.grad_query + long(T) * width, Real(0));
  for (int t = 0; t < T; ++t) {
    const Real* o = &out(b, t, h, 0);
    const Real* g = s.grad_out + long(t) * width;
    Real dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int d = 0; d < D; ++d) dot += o[d] * g[d];
    delta(b, h, t) = dot;
  }
  const RandomStream stream = dropout.sample(b).child(std::uint64_t(h));

  for (int key = 0; key < T; key += key_tile) {
    const int keys = std::min(key_tile, T - key);
    pack_transposed({s.key, width}, key, keys, D, s.key_transposed);
    pack_transposed({s.value, width}, key, keys, D, s.value_transposed);
    std::fill(s.grad_key, s.grad_key + long(keys) * width, Real(0));
    std::fill(s.grad_value, s.grad_value + long(keys) * width, Real(0));
    for (int first = key / query_tile * query_tile; first < T; first += query_tile) {
      const int rows = std::min(query_tile, T - first), seen = visible_keys(first + rows, key), columns = padded(seen);
      const Strided query{s.query + long(first) * width, width, 1}, grad{s.grad_out + long(first) * width, width, 1};
      tile_product<false>(rows, columns, D, query, s.key_transposed, key_tile, s.weights, key_tile);
      tile_product<false>(rows, columns, D, grad, s.value_transposed, key_tile, s.grad_scores, key_tile);
      backward_tile_rows(delta, lse, b, h, first, rows, key, seen, columns, T, dropout, stream, s.weights, s.grad_scores);
      tile_product<true>(seen, width, rows, Strided{s.weights, 1, key_tile}, grad.data, width, s.grad_value, width);
      tile_product<true>(seen, width, rows, Strided{s.grad_scores, 1, key_tile}, query.data, width, s.grad_key, width);
      tile_product<true>(rows, width, seen, Strided{s.grad_scores, key_tile, 1}, s.key + long(key) * width, width,
                         s.grad_query + long(first) * width, width);
    }
    for (int i = 0; i < keys; ++i)
      for (int d = 0; d < D; ++d) {
        grad_qkv(b, key + i, 1, h, d) = s.grad_key[long(i) * width + d];
        grad_qkv(b, key + i, 2, h, d) = s.grad_value[long(i) * width + d];
      }
  }
  for (int t = 0; t < T; ++t)
    for (int d = 0; d < D; ++d) grad_qkv(b, t, 0, h, d) = scale * s.grad_query[long(t) * width + d];
}

std::size_t scratch_elements(int T, int D) {
  const std::size_t width = std::size_t(padded(D)), rows = std::size_t(T + key_tile);
  return 5 * rows * width + 2 * std::size_t(D) * key_tile + 2 * query_tile * key_tile + 3 * key_tile * width;
}

}  // namespace

void causal_attention(const ExecSpace& exec, ConstTensor5 qkv, Real scale, const Dropout& dropout, Tensor4 out,
                      Tensor3 lse) {
  const auto extent = causal_attention_shapes.match(qkv, out, lse);
  const HeadLayout layout{extent['B'], extent['T'], extent['H'], extent['D'], qkv};
  const int heads = layout.B * layout.H, T = layout.T, threads = exec.concurrency();
  // Few heads on many threads: several tasks share a head. A row's result does not depend on the cut.
  const int tiles = (T + query_tile - 1) / query_tile;
  const int parts = std::clamp(4 * threads / std::max(heads, 1), 1, tiles);
  const int part_rows = (tiles + parts - 1) / parts * query_tile;
  ThreadScratch& scratch = thread_scratch();
  scratch.reserve(threads, scratch_elements(T, layout.D));
  using Policy = Kokkos::RangePolicy<ExecSpace, Kokkos::Schedule<Kokkos::Dynamic>>;
  Kokkos::parallel_for("dekoder::causal_attention", Policy(exec, 0, heads * parts, Kokkos::ChunkSize(1)), [&](int task) {
    const int head = task / parts, begin = task % parts * part_rows, end = std::min(T, begin + part_rows);
    if (begin < end)
      forward_head(layout, head / layout.H, head % layout.H, begin, end, scale, dropout, out, lse, scratch.mine());
  });
}

void causal_attention_backward(const ExecSpace& exec, ConstTensor5 qkv, ConstTensor4 out, ConstTensor4 grad_out,
                               ConstTensor3 lse, Real scale, const Dropout& dropout, Tensor3 delta, Tensor5 grad_qkv) {
  const auto extent = causal_attention_backward_shapes.match(qkv, out, grad_out, lse, delta, grad_qkv);
  const HeadLayout layout{extent['B'], extent['T'], extent['H'], extent['D'], qkv};
  ThreadScratch& scratch = thread_scratch();
  scratch.reserve(exec.concurrency(), scratch_elements(layout.T, layout.D));
  using Policy = Kokkos::RangePolicy<ExecSpace, Kokkos::Schedule<Kokkos::Dynamic>>;
  const Policy policy(exec, 0, layout.B * layout.H, Kokkos::ChunkSize(1));
  Kokkos::parallel_for("dekoder::causal_attention_backward", policy, [&](int head) {
    backward_head(layout, head / layout.H, head % layout.H, out, grad_out, lse, scale, dropout, delta, grad_qkv,
                  scratch.mine());
  });
}

}  // namespace dekoder

#endif
