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

/// Running maximum (of scores in base 2) and sum of each query of a tile.
struct SoftmaxState {
  Vector largest[query_vectors], total[query_vectors];
};

/// Scratch of a task of so many tiles of queries, which go past one block of keys after the other.
struct ForwardScratch {
  QueryColumns query;    ///< (D, query_tile), transposed
  QueryColumns weights;  ///< (key_tile, query_tile)
  Rows keys, values;     ///< (block, D)
  QueryColumns out;      ///< (query_tiles D, query_tile), transposed
  SoftmaxState* states;  ///< (query_tiles)

  ForwardScratch(Pieces& pieces, int D, int query_tiles, int block)
      : query{pieces.take<Real>(D, query_tile)},
        weights{pieces.take<Real>(key_tile, query_tile)},
        keys{pieces.take<Real>(block, D), D},
        values{pieces.take<Real>(block, D), D},
        out{pieces.take<Real>(long(query_tiles) * D, query_tile)},
        states(pieces.take<SoftmaxState>(query_tiles, 1)) {}
};

/// Turns one tile of scores into weights exp2(score - maximum so far), 0 where a query does not see the key, and
/// rescales what was summed under an older maximum.
void online_softmax(const ScoreTile& tile, int D, SoftmaxState& state, QueryColumns weights, QueryColumns sums) {
  const IntegerVector lanes = lane_indices();
  for (int v = 0; v * vector_width < tile.width(); ++v) {
    const int all = tile.keys_seen_by_all(v), seen = tile.keys_seen(v), query = tile.query + v * vector_width;
    const int before = tile.keys_before(v), left = tile.keys_left(v);
    const QueryColumns scores = weights.from(0, v * vector_width);
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
    if (fold_lanes(correction, [](Vector x, Vector y) { return x < y ? x : y; }) == 1) continue;
    for (int d = 0; d < D && tile.key > 0; ++d) {
      Real* out = sums.at(d) + v * vector_width;
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

/// Writes out and lse of a tile of queries from its sums.
void store_queries(const ForwardCall& call, int b, int h, int query, int queries, const SoftmaxState& state,
                   QueryColumns out) {
  const int D = call.D();
  for (int v = 0; v * vector_width < queries; ++v) {
    const Vector inverse = Real(1) / state.total[v];
    for (int d = 0; d < D; ++d) {
      Real* sum = out.at(d) + v * vector_width;
      store(sum, load(sum) * inverse);
    }
    for (int lane = 0; lane < vector_width && v * vector_width + lane < queries; ++lane)
      call.lse(b, h, query + v * vector_width + lane) =
          ln_2 * state.largest[v][lane] + std::log(state.total[v][lane]);
  }
  transpose_scaled(D, queries, Real(1), out, head_rows(call.out, b, h).from(query, 0));
}

/// One tile of queries of head h, whose sums have that place, against those of keys [begin, end), which are packed;
/// writes out and lse with the last of the keys that it sees.
void forward_queries(const ForwardCall& call, int b, int h, int query, int begin, int end, int place,
                     const ForwardScratch& s) {
  const int T = call.T(), D = call.D(), queries = std::min(query_tile, T - query), width = padded(queries);
  const int first = first_tile_key(call.form, query);
  const WeightDropout drop(call.dropout, b, h, T);
  const QueryColumns out = s.out.from(place * D, 0);
  SoftmaxState& state = s.states[place];
  if (queries < width) clear_rows(D, width, s.query);
  transpose_scaled(queries, D, call.form.scale * log2_e, head_rows(call.qkv.query, b, h).from(query, 0), s.query);
  if (begin <= first) {
    clear_rows(D, width, out);
    std::fill_n(state.largest, query_vectors, broadcast(-std::numeric_limits<Real>::infinity()));
    std::fill_n(state.total, query_vectors, Vector{});
  }
  for (int key = std::max(begin, first); key < std::min(end, query + queries); key += key_tile) {
    const ScoreTile tile{query, queries, key, std::min(key_tile, query + queries - key), call.form};
    const Rows keys_of_tile = s.keys.from(key - begin, 0), values_of_tile = s.values.from(key - begin, 0);
    for_each_band(tile, [&](int band, int keys, int first_query) {
      tile_product<false>(keys, width - first_query, D, Plain{keys_of_tile.from(band, 0)},
                          s.query.from(0, first_query), s.weights.from(band, first_query));
    });
    online_softmax(tile, D, state, s.weights, out);
    if (drop.active()) drop_weights(tile, drop, s.weights);
    for_each_band(tile, [&](int band, int keys, int first_query) {
      tile_product<true>(D, width - first_query, keys, Transposed{values_of_tile.from(band, 0)},
                         s.weights.from(band, first_query), out.from(0, first_query));
    });
  }
  if (query + queries <= end) store_queries(call, b, h, query, queries, state, out);
}

/// Queries [from, to) of head h.
void forward_task(const ForwardCall& call, int b, int h, int from, int to, int block, const ForwardScratch& s) {
  const int D = call.D(), g = h / call.shared();
  for_each_block(
      call.form, from, to, query_tile, block,
      [&](int begin, int end) {
        copy_rows(end - begin, D, D, head_rows(call.qkv.key, b, g).from(begin, 0), s.keys);
        copy_rows(end - begin, D, D, head_rows(call.qkv.value, b, g).from(begin, 0), s.values);
      },
      [&](int query, int begin, int end, int place) { forward_queries(call, b, h, query, begin, end, place, s); });
}

}  // namespace

void causal_attention(const ExecSpace& exec, const ConstHeads& qkv, AttentionForm form, const Dropout& dropout,
                      StoredTensor4 out, MasterTensor3 lse, MasterTensor1 scores) {
  causal_attention_shapes.match(qkv.query, qkv.key, qkv.value, out, lse, scores);
  require_heads("causal_attention", qkv);
  require_window("causal_attention", form);
  const ForwardCall call{qkv, form, dropout, out, lse};
  if (brgemm_attention(exec, call)) return;
  const int T = call.T(), D = call.D(), block = key_block(T, D);
  const int of_task = tiles_of_task(call, query_tile, exec.concurrency());
  const int tasks = tiles_of(T, of_task * query_tile);
  for_each_task("dekoder::causal_attention", exec, out.extent(0), call.H(), tasks,
                bytes_of<ForwardScratch>(D, of_task, block), [=](int b, int h, int i, void* memory) {
                  const int from = (tasks - 1 - i) * of_task * query_tile;  // the longest first
                  Pieces pieces(memory);
                  forward_task(call, b, h, from, std::min(from + of_task * query_tile, T), block,
                               ForwardScratch(pieces, D, of_task, block));
                });
}

}  // namespace dekoder
