// SPDX-License-Identifier: Apache-2.0
// Forward pass of causal attention on CPUs: one task per tile of queries.
#include "kernels/attention/attention.hpp"

#include <cmath>
#include <limits>

#include "kernels/attention/brgemm_host.hpp"
#include "kernels/attention/tile_host.hpp"

namespace dekoder {

namespace {

using namespace host;

constexpr int query_vectors = query_tile / vector_width;

/// Scratch of one task.
struct ForwardScratch {
  QueryColumns query, out;  ///< (D, query_tile), transposed
  Rows keys, values;        ///< (key_tile, D)
  QueryColumns weights;     ///< (key_tile, query_tile)

  ForwardScratch(ScratchPieces pieces, int D)
      : query(pieces.take<query_tile>(D)),
        out(pieces.take<query_tile>(D)),
        keys(pieces.take(key_tile, D)),
        values(pieces.take(key_tile, D)),
        weights(pieces.take<query_tile>(key_tile)) {}
  static std::size_t elements(int D) {
    return 2 * ScratchPieces::elements(D, query_tile) + 2 * ScratchPieces::elements(key_tile, D) +
           ScratchPieces::elements(key_tile, query_tile);
  }
};

/// Running maximum (of scores in base 2) and sum of each query of a tile.
struct SoftmaxState {
  Vector largest[query_vectors], total[query_vectors];

  SoftmaxState() {
    for (int v = 0; v < query_vectors; ++v) {
      largest[v] = broadcast(-std::numeric_limits<Real>::infinity());
      total[v] = Vector{};
    }
  }
};

/// Turns one tile of scores into weights exp2(score - maximum so far), 0 where a query does not see the key, and
/// rescales what was summed under an older maximum.
void online_softmax(const ScoreTile& tile, int D, SoftmaxState& state, const ForwardScratch& s) {
  const IntegerVector lanes = lane_indices();
  for (int v = 0; v * vector_width < tile.width(); ++v) {
    const int all = tile.keys_seen_by_all(v), seen = tile.keys_seen(v), query = tile.query + v * vector_width;
    const int before = tile.keys_before(v), left = tile.keys_left(v);
    const QueryColumns scores = s.weights.from(0, v * vector_width);
    const Vector none = broadcast(-std::numeric_limits<Real>::infinity());
    Vector largest = state.largest[v], second = largest;
    int k = 0;
    for (; k < before; ++k) store(scores.at(k), Vector{});
    for (; k < left; ++k) {
      const Vector x = tile.sees(v, k) ? load(scores.at(k)) : none;
      store(scores.at(k), x);
      largest = x > largest ? x : largest;
    }
    for (; k + 2 <= all; k += 2) {
      const Vector x = load(scores.at(k)), y = load(scores.at(k + 1));
      largest = x > largest ? x : largest;
      second = y > second ? y : second;
    }
    for (; k < seen; ++k) {
      const IntegerVector visible = lanes >= LaneInteger(tile.key + k - query);
      const Vector x = visible ? load(scores.at(k)) : none;
      store(scores.at(k), x);
      largest = x > largest ? x : largest;
    }
    largest = second > largest ? second : largest;
    const Vector base = largest > none ? largest : Vector{};  // of queries that have seen no key yet
    Vector total{};
    for (k = before; k < seen; ++k) {
      const Vector weight = exp2(load(scores.at(k)) - base);
      total += weight;
      store(scores.at(k), weight);
    }
    const Vector correction = exp2(state.largest[v] - base);
    state.total[v] = state.total[v] * correction + total;
    state.largest[v] = largest;
    for (int d = 0; d < D && tile.key > 0; ++d) {
      Real* out = s.out.at(d) + v * vector_width;
      store(out, load(out) * correction);
    }
  }
}

/// Multiplies the weights of one tile by their dropout factors.
void drop_weights(const ScoreTile& tile, WeightDropout drop, QueryColumns weights) {
  for (int v = 0; v * vector_width < tile.width(); ++v)
    for (int k = 0; k < tile.keys_seen(v); ++k) {
      Real* weight = weights.at(k) + v * vector_width;
      store(weight, load(weight) * drop.factors(tile.query + v * vector_width, tile.key + k));
    }
}

/// out and lse of one tile of queries of head h, whose keys and values are those of head g.
void forward_tile(const ConstHeads& qkv, int b, int h, int g, int query, AttentionForm form,
                  const WeightDropout& drop, const StoredTensor4& out, const MasterTensor3& lse,
                  const ForwardScratch& s) {
  const int T = qkv.query.extent_int(1), D = qkv.query.extent_int(3), queries = std::min(query_tile, T - query);
  const int width = padded(queries);
  if (queries < width) clear_rows(D, width, s.query);
  transpose_scaled(queries, D, form.scale * log2_e, head_rows(qkv.query, b, h).from(query, 0), s.query);
  clear_rows(D, width, s.out);
  SoftmaxState state;
  for (int key = first_tile_key(form, query); key < query + queries; key += key_tile) {
    const ScoreTile tile{query, queries, key, std::min(key_tile, query + queries - key), form};
    copy_rows(tile.keys, D, D, head_rows(qkv.key, b, g).from(key, 0), s.keys);
    copy_rows(tile.keys, D, D, head_rows(qkv.value, b, g).from(key, 0), s.values);
    for_each_band(tile, [&](int band, int keys, int first) {
      tile_product<false>(keys, width - first, D, Plain{s.keys.from(band, 0)}, s.query.from(0, first),
                          s.weights.from(band, first));
    });
    online_softmax(tile, D, state, s);
    if (drop.active()) drop_weights(tile, drop, s.weights);
    for_each_band(tile, [&](int band, int keys, int first) {
      tile_product<true>(D, width - first, keys, Transposed{s.values.from(band, 0)}, s.weights.from(band, first),
                         s.out.from(0, first));
    });
  }
  for (int v = 0; v * vector_width < width; ++v) {
    const Vector inverse = Real(1) / state.total[v];
    for (int d = 0; d < D; ++d) {
      Real* sum = s.out.at(d) + v * vector_width;
      store(sum, load(sum) * inverse);
    }
    for (int lane = 0; lane < vector_width && v * vector_width + lane < queries; ++lane)
      lse(b, h, query + v * vector_width + lane) = ln_2 * state.largest[v][lane] + std::log(state.total[v][lane]);
  }
  transpose_scaled(D, queries, Real(1), s.out, head_rows(out, b, h).from(query, 0));
}

}  // namespace

void causal_attention(const ExecSpace& exec, const ConstHeads& qkv, AttentionForm form, const Dropout& dropout,
                      StoredTensor4 out, MasterTensor3 lse, MasterTensor1 scores) {
  const auto extent = causal_attention_shapes.match(qkv.query, qkv.key, qkv.value, out, lse, scores);
  require_heads("causal_attention", qkv);
  require_window("causal_attention", form);
  if (brgemm_attention(exec, qkv, form, dropout, out, lse)) return;
  const int T = extent['T'], H = extent['H'], D = extent['D'], shared = H / extent['G'];
  const int tiles = (T + query_tile - 1) / query_tile;
  for_each_task("dekoder::causal_attention", exec, out.extent(0), H, tiles,
                ForwardScratch::elements(D) * sizeof(Real), [=](int b, int h, int i, void* memory) {
                  const int tile = tiles - 1 - i;  // the longest first
                  forward_tile(qkv, b, h, h / shared, tile * query_tile, form, WeightDropout(dropout, b, h, T), out,
                               lse, ForwardScratch(ScratchPieces(memory), D));
                });
}

}  // namespace dekoder
