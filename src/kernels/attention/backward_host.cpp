// SPDX-License-Identifier: Apache-2.0
// Backward pass of causal attention on CPUs. One task per head of keys and values makes all three gradients of it
// and of the queries that share it from one recomputation of the weights; where heads are too few for the threads,
// one pass over tiles of queries and one over tiles of keys recompute them twice. Queries go past one block of keys
// after the other, of as many as a core's cache holds with their gradients. All take every sum in the same order:
// the results are the same bits.
#include "kernels/attention/attention.hpp"

#include "kernels/attention/brgemm_host.hpp"
#include "kernels/attention/tile_host.hpp"

namespace dekoder {

namespace {

using namespace host;

/// Scratch of one task.
struct BackwardScratch {
  QueryColumns query_transposed, grad_out_transposed;  ///< (D, query_tile)
  Rows query, grad_out;                                ///< (query_tile, padded(D))
  QueryColumns weights, grad_scores;                   ///< (key_tile, query_tile)
  QueryColumns grad_query;                             ///< (query_tiles D, query_tile)
  Rows keys, values;                                   ///< (block, D)
  Rows grad_keys, grad_values;                         ///< (sums, padded(D))
  OpenSums<query_tile>* open;                          ///< (query_tiles), in bf16

  BackwardScratch(Pieces& pieces, int D, Held held)
      : query_transposed{pieces.take<Real>(D, query_tile)},
        grad_out_transposed{pieces.take<Real>(D, query_tile)},
        query{pieces.take<Real>(query_tile, padded(D)), padded(D)},
        grad_out{pieces.take<Real>(query_tile, padded(D)), padded(D)},
        weights{pieces.take<Real>(key_tile, query_tile)},
        grad_scores{pieces.take<Real>(key_tile, query_tile)},
        grad_query{pieces.take<Real>(long(held.query_tiles) * D, query_tile)},
        keys{pieces.take<Real>(held.block, D), D},
        values{pieces.take<Real>(held.block, D), D},
        grad_keys{pieces.take<Real>(held.sums, padded(D)), padded(D)},
        grad_values{pieces.take<Real>(held.sums, padded(D)), padded(D)},
        open(pieces.take<OpenSums<query_tile>>(stored_is_short ? std::max(1, held.query_tiles) : 0, 1)) {}
};

// query_deltas() and weights_and_grad_scores() are compiled once, and not into the passes that call them: where a
// product and a sum become one instruction, and in which lanes a sum is taken, is the compiler's choice at each
// place, and all passes must give the same bits.

/// delta of the queries of one tile: rows of grad_out (already packed) times rows of out. In bf16, where out is
/// rounded, those of all tiles of keys but the last.
[[gnu::noipa]] void query_deltas(const BackwardCall& call, int b, int h, const ScoreTile& tile,
                                 const BackwardScratch& s, int place) {
  const int D = call.D();
  Real* const delta = stored_is_short ? s.open[place].delta : &call.delta(b, h, tile.query);
  if constexpr (stored_is_short) s.open[place] = {};
  for (int i = 0; i < tile.queries; ++i) {
    const Stored* out = head_rows(call.out, b, h).at(tile.query + i);
    const Real* grad_out = s.grad_out.at(i);
    Real dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int d = 0; d < D; ++d) dot += out[d] * grad_out[d];
    delta[i] = dot;
  }
}

/// Packs queries and output gradients of one tile, both ways round.
void load_queries(const BackwardCall& call, int b, int h, const ScoreTile& tile, const BackwardScratch& s) {
  const int D = call.D(), width = tile.width(), columns = padded(D);
  const auto query = head_rows(call.qkv.query, b, h).from(tile.query, 0);
  const auto grad_out = head_rows(call.grad_out, b, h).from(tile.query, 0);
  if (tile.queries < width) {
    clear_rows(D, width, s.query_transposed);
    clear_rows(D, width, s.grad_out_transposed);
    clear_rows(width, columns, s.query);
    clear_rows(width, columns, s.grad_out);
  }
  transpose_scaled(tile.queries, D, call.form.scale * log2_e, query, s.query_transposed);
  transpose_scaled(tile.queries, D, Real(1), grad_out, s.grad_out_transposed);
  copy_rows(tile.queries, D, columns, query, s.query);
  copy_rows(tile.queries, D, columns, grad_out, s.grad_out);
}

/// Packs keys and values of one block, or tile.
void load_keys(const BackwardCall& call, int b, int g, int key, int keys, const BackwardScratch& s) {
  copy_rows(keys, call.D(), call.D(), head_rows(call.qkv.key, b, g).from(key, 0), s.keys);
  copy_rows(keys, call.D(), call.D(), head_rows(call.qkv.value, b, g).from(key, 0), s.values);
}

/// One vector of rows [query, ..) of lse or delta, zeros beyond `count`.
template <class Tensor>
Vector query_vector(const Tensor& x, int b, int h, int query, int count) {
  if (count >= vector_width) return load(&x(b, h, query));
  Real value[vector_width] = {};
  for (int lane = 0; lane < count; ++lane) value[lane] = x(b, h, query + lane);
  return load(value);
}

/// From scores (in s.weights) and d loss / d weights (in s.grad_scores): the weights after dropout and d loss / d
/// scores, without the factor `scale`; both 0 where a query does not see the key. In bf16 the last tile of keys has
/// a delta of its own, with which all d loss / d scores of a query add up to 0.
[[gnu::noipa]] void weights_and_grad_scores(Pass pass, const BackwardCall& call, int b, int h,
                                            const ScoreTile& tile, WeightDropout drop, const BackwardScratch& s,
                                            int place) {
  for (int v = 0; v * vector_width < tile.width(); ++v) {
    const int query = tile.query + v * vector_width, count = tile.queries - v * vector_width;
    const int all = tile.keys_seen_by_all(v), seen = tile.keys_seen(v);
    const int before = tile.keys_before(v), left = tile.keys_left(v);
    const Vector lse = log2_e * query_vector(call.lse, b, h, query, count);
    const QueryColumns weights = s.weights.from(0, v * vector_width),
                       grad_scores = s.grad_scores.from(0, v * vector_width);
    struct Weighted {
      Vector weight, kept, grad_weight;
    };
    const auto weigh = [&](int k) __attribute__((always_inline)) {
      Weighted x{exp2(load(weights.at(k)) - lse), {}, load(grad_scores.at(k))};
      x.kept = x.weight;
      if (drop.active()) {
        const Vector factor = drop.factors(query, tile.key + k);
        x.grad_weight *= factor;
        x.kept *= factor;
      }
      return x;
    };
    const auto visible = [&](int k, Vector x) __attribute__((always_inline)) {
      return k >= all || k < left ? (tile.sees(v, k) ? x : Vector{}) : x;
    };
    Vector delta, open_sum{};
    if constexpr (stored_is_short) {
      static_assert(query_tile <= key_tile || !stored_is_short, "the last tile has the last key of each query");
      OpenSums<query_tile>& open = s.open[place];
      delta = load(open.delta + v * vector_width);
      if (tile.key + tile.keys >= tile.query + tile.queries) {
        if (pass != Pass::key_value) {
          Vector total{}, weighted = load(open.sum + v * vector_width);
          for (int k = before; k < seen; ++k) {
            const Weighted x = weigh(k);
            total += visible(k, x.weight);
            weighted += visible(k, x.weight * x.grad_weight);
          }
          delta = total > least_closing_weight ? weighted / total : delta;
          for (int lane = 0; lane < std::min(count, vector_width); ++lane)
            call.delta(b, h, query + lane) = delta[lane];
        }
        delta = query_vector(call.delta, b, h, query, count);
      }
    } else {
      delta = query_vector(call.delta, b, h, query, count);
    }
    for (int k = 0; k < before; ++k) {
      store(weights.at(k), Vector{});
      store(grad_scores.at(k), Vector{});
    }
    for (int k = before; k < seen; ++k) {
      const Weighted x = weigh(k);
      const Vector grad_score = visible(k, x.weight * (x.grad_weight - delta));
      if constexpr (stored_is_short) open_sum += grad_score;
      store(weights.at(k), visible(k, x.kept));
      store(grad_scores.at(k), grad_score);
    }
    if constexpr (stored_is_short) {
      Real* const sum = s.open[place].sum + v * vector_width;
      store(sum, load(sum) + open_sum);
    }
  }
}

/// The five products of one tile (FlashAttention-2, algorithm 2, lines 11 to 16). `block` is the tile's place among
/// the packed keys, `sum` that among the sums of key and value gradients, `place` that of its queries'.
template <Pass pass>
void backward_tile(const BackwardCall& call, int b, int h, const ScoreTile& tile, const WeightDropout& drop,
                   const BackwardScratch& s, int block, int sum, int place) {
  const int D = call.D(), width = tile.width(), columns = padded(D);
  const Rows tile_keys = s.keys.from(block, 0), tile_values = s.values.from(block, 0);
  const QueryColumns grad_query = s.grad_query.from(place * D, 0);
  for_each_band(tile, [&](int band, int keys, int first) {
    tile_product<false>(keys, width - first, D, Plain{tile_keys.from(band, 0)}, s.query_transposed.from(0, first),
                        s.weights.from(band, first));
    tile_product<false>(keys, width - first, D, Plain{tile_values.from(band, 0)},
                        s.grad_out_transposed.from(0, first), s.grad_scores.from(band, first));
  });
  weights_and_grad_scores(pass, call, b, h, tile, drop, s, place);
  for_each_band(tile, [&](int band, int keys, int first) {
    if (pass != Pass::query) {
      tile_product<true>(keys, columns, width - first, Plain{s.weights.from(band, first)},
                         s.grad_out.from(first, 0), s.grad_values.from(sum + band, 0));
      tile_product<true>(keys, columns, width - first, Plain{s.grad_scores.from(band, first)},
                         s.query.from(first, 0), s.grad_keys.from(sum + band, 0));
    }
    if (pass != Pass::key_value)
      tile_product<true>(D, width - first, keys, Transposed{tile_keys.from(band, 0)},
                         s.grad_scores.from(band, first), grad_query.from(0, first));
  });
}

/// One tile of queries of head h, whose gradients have that place, against those of keys [begin, end), which are
/// packed; writes the gradients of the queries with the last of the keys that they see.
template <Pass pass>
void backward_queries(const BackwardCall& call, int b, int h, int query, int begin, int end, int place,
                      const BackwardScratch& s) {
  const int D = call.D(), queries = std::min(query_tile, call.T() - query);
  const int first = first_tile_key(call.form, query);
  const WeightDropout drop(call.dropout, b, h, call.T());
  ScoreTile tile{query, queries, 0, 0, call.form};
  load_queries(call, b, h, tile, s);
  if (begin <= first) {
    query_deltas(call, b, h, tile, s, place);
    clear_rows(D, tile.width(), s.grad_query.from(place * D, 0));
  }
  for (int key = std::max(begin, first); key < std::min(end, query + queries); key += key_tile) {
    tile.key = key;
    tile.keys = std::min(key_tile, query + queries - key);
    backward_tile<pass>(call, b, h, tile, drop, s, key - begin, key, place);
  }
  if (query + queries <= end)
    transpose_scaled(D, queries, call.form.scale, s.grad_query.from(place * D, 0),
                     head_rows(call.grad_qkv.query, b, h).from(query, 0));
}

/// Writes the gradients of keys and values [key, key + keys) of head g from their sums.
void store_key_value(const BackwardCall& call, int b, int g, int key, int keys, const BackwardScratch& s) {
  const int D = call.D();
  for (int i = 0; i < keys; ++i) {
    Real* row = s.grad_keys.at(i);
    for (int d = 0; d < D; ++d) row[d] *= call.form.scale;
  }
  copy_rows(keys, D, D, s.grad_keys, head_rows(call.grad_qkv.key, b, g).from(key, 0));
  copy_rows(keys, D, D, s.grad_values, head_rows(call.grad_qkv.value, b, g).from(key, 0));
}

/// Tiles of queries [from, to) of head h against all keys that they see.
template <Pass pass>
void backward_blocks(const BackwardCall& call, int b, int h, int from, int to, const BackwardScratch& s) {
  for_each_block(
      call.form, from, to, query_tile, key_block(call.T(), call.D()),
      [&](int begin, int end) { load_keys(call, b, h / call.shared(), begin, end - begin, s); },
      [&](int query, int begin, int end, int place) {
        backward_queries<pass>(call, b, h, query, begin, end, place, s);
      });
}

/// One head of keys and values and the queries that share it, all gradients from one recomputation.
void backward_head(const BackwardCall& call, int b, int g, const BackwardScratch& s) {
  const int T = call.T(), columns = padded(call.D());
  clear_rows(T, columns, s.grad_keys);
  clear_rows(T, columns, s.grad_values);
  for (int h = g * call.shared(); h < (g + 1) * call.shared(); ++h) backward_blocks<Pass::all>(call, b, h, 0, T, s);
  store_key_value(call, b, g, 0, T, s);
}

/// Key and value gradients of one tile of keys of head g. Reads the deltas of its queries.
void backward_keys(const BackwardCall& call, int b, int g, int key, const BackwardScratch& s) {
  const int T = call.T(), columns = padded(call.D()), keys = std::min(key_tile, T - key);
  clear_rows(keys, columns, s.grad_keys);
  clear_rows(keys, columns, s.grad_values);
  load_keys(call, b, g, key, keys, s);
  for (int h = g * call.shared(); h < (g + 1) * call.shared(); ++h) {
    const WeightDropout drop(call.dropout, b, h, T);
    const int end = call.form.end_of_queries(key + keys - 1, T);
    for (int query = key / query_tile * query_tile; query < end; query += query_tile) {
      const int queries = std::min(query_tile, T - query);
      const ScoreTile tile{query, queries, key, std::min(keys, query + queries - key), call.form};
      load_queries(call, b, h, tile, s);
      if (stored_is_short) query_deltas(call, b, h, tile, s, 0);
      backward_tile<Pass::key_value>(call, b, h, tile, drop, s, 0, 0, 0);
    }
  }
  store_key_value(call, b, g, key, keys, s);
}

}  // namespace

std::size_t attention_score_elements(int, int, int) {
  return 0;
}

std::size_t attention_scratch_bytes(int threads, int sequences, int context, int key_value_heads, int head_size) {
  if (const std::size_t bytes = brgemm_attention_scratch_bytes(context, head_size); bytes > 0) return bytes;
  const std::size_t of_head = bytes_of<BackwardScratch>(head_size, Held::head(context, head_size, query_tile));
  const bool one_task = one_task_per_head(threads, long(sequences) * key_value_heads, of_head);
  // The forward pass needs less.
  return 64 + (one_task ? of_head
                        : std::max(bytes_of<BackwardScratch>(head_size, Held::tile_of_queries(context, head_size)),
                                   bytes_of<BackwardScratch>(head_size, Held::tile_of_keys())));
}

void causal_attention_backward(const ExecSpace& exec, const ConstHeads& qkv, ConstStoredTensor4 out,
                               ConstStoredTensor4 grad_out, ConstMasterTensor3 lse, AttentionForm form,
                               const Dropout& dropout, MasterTensor3 delta, const Heads& grad_qkv,
                               MasterTensor1 scores) {
  causal_attention_backward_shapes.match(qkv.query, qkv.key, qkv.value, out, grad_out, lse, delta, grad_qkv.query,
                                         grad_qkv.key, grad_qkv.value, scores);
  require_heads("causal_attention_backward", qkv);
  require_heads("causal_attention_backward", grad_qkv);
  require_window("causal_attention_backward", form);
  const BackwardCall call{qkv, out, grad_out, lse, form, dropout, delta, grad_qkv};
  if (brgemm_attention_backward(exec, call)) return;
  const std::size_t B = out.extent(0);
  const int T = call.T(), D = call.D();
  const auto start = [&](const char* label, int heads, int tasks_per_head, Held held, const auto& task) {
    for_each_task(label, exec, B, heads, tasks_per_head, bytes_of<BackwardScratch>(D, held),
                  [=](int b, int head, int i, void* memory) {
                    Pieces pieces(memory);
                    task(b, head, i, BackwardScratch(pieces, D, held));
                  });
  };
  const Held head = Held::head(T, D, query_tile);
  if (one_task_per_head(exec.concurrency(), long(B) * call.G(), bytes_of<BackwardScratch>(D, head))) {
    start("dekoder::causal_attention_backward::head", call.G(), 1, head,
          [=](int b, int g, int, const BackwardScratch& s) { backward_head(call, b, g, s); });
    return;
  }
  const int query_tiles = tiles_of(T, query_tile);
  start("dekoder::causal_attention_backward::query", call.H(), query_tiles, Held::tile_of_queries(T, D),
        [=](int b, int h, int i, const BackwardScratch& s) {
          const int query = (query_tiles - 1 - i) * query_tile;  // the longest first
          backward_blocks<Pass::query>(call, b, h, query, std::min(query + query_tile, T), s);
        });
  start("dekoder::causal_attention_backward::key_value", call.G(), tiles_of(T, key_tile), Held::tile_of_keys(),
        [=](int b, int g, int i, const BackwardScratch& s) { backward_keys(call, b, g, i * key_tile, s); });
}

}  // namespace dekoder
