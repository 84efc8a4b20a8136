// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention.hpp"

#include "kernels/rows.hpp"
#include "kernels/vector_math.hpp"

namespace dekoder {

StridedTensor4 heads_of_rows(const StoredTensor2& x, int sequences, int head_size, int first, int count) {
  const std::size_t B = std::size_t(sequences), D = std::size_t(head_size), H = std::size_t(count);
  const std::size_t N = x.extent(0), row = x.extent(1), begin = std::size_t(first) * D;
  if (B == 0 || N % B != 0 || begin + H * D > row || !x.span_is_contiguous())
    throw ShapeError(fmt::format("heads_of_rows: x is ({},{}); expected B={} sequences of rows of {} heads of {}",
                                 N, row, B, std::size_t(first) + H, D));
  const std::size_t T = N / B;
  return StridedTensor4(x.data() + begin, Kokkos::LayoutStride(B, T * row, T, row, H, D, D, 1));
}

Heads split_heads(const StoredTensor2& qkv, int sequences, int query_heads, int key_value_heads) {
  const int H = query_heads, G = key_value_heads, row = qkv.extent_int(1), heads = H + 2 * G;
  if (sequences <= 0 || G <= 0 || qkv.extent_int(0) % sequences != 0 || row % heads != 0)
    throw ShapeError(
        fmt::format("split_heads: qkv is ({},{}); expected B={} sequences of rows of {} + 2 * {} heads",
                    qkv.extent(0), row, sequences, H, G));
  const auto part = [&](int first, int count) { return heads_of_rows(qkv, sequences, row / heads, first, count); };
  return {part(0, H), part(H, G), part(H + G, G)};
}

void require_heads(const char* function, const ConstHeads& qkv) {
  const std::size_t H = qkv.query.extent(2), G = qkv.key.extent(2);
  if (G == 0 || H % G != 0)
    throw ShapeError(fmt::format("{}: {} heads of queries share {} of keys and values; expected a multiple of them",
                                 function, H, G));
  for (const ConstStridedTensor4& part : {qkv.query, qkv.key, qkv.value})
    if (part.extent(3) > 1 && part.stride(3) != 1)
      throw ShapeError(
          fmt::format("{}: the elements of a head lie {} apart; expected neighbours", function, part.stride(3)));
}

void fill_cache(const ExecSpace& exec, const ConstHeads& qkv, StoredTensor5 cache) {
  const auto extent = fill_cache_shapes.match(qkv.key, qkv.value, cache);
  require_heads("fill_cache", qkv);
  const int S = extent['S'], G = extent['G'], D = extent['D'];
  if (S > extent['T'])
    throw ShapeError(fmt::format("fill_cache: {} tokens but the cache has T={}", S, extent['T']));
  const ConstStridedTensor4 keys = qkv.key, values = qkv.value;
  for_each_row(
      "dekoder::fill_cache", exec, long(extent['B']) * S, KOKKOS_LAMBDA(const RowTeam& team, long row) {
        const int b = int(row / S), t = int(row % S);
        for (int g = 0; g < G; ++g)
          team.each(D, [=](int d) {
            cache(b, 0, g, t, d) = keys(b, t, g, d);
            cache(b, 1, g, t, d) = values(b, t, g, d);
          });
      });
}

void require_window(const char* function, AttentionForm form) {
  if (form.window < 1)
    throw ShapeError(fmt::format("{}: a window of {} tokens; expected 1 or more", function, form.window));
}

void cached_attention(const ExecSpace& exec, const ConstHeads& qkv, const FirstPositions& positions,
                      AttentionForm form, StoredTensor5 cache, MasterTensor3 sums, StoredTensor4 out) {
  const auto extent = cached_attention_shapes.match(qkv.query, qkv.key, qkv.value, cache, sums, out);
  require_heads("cached_attention", qkv);
  require_window("cached_attention", form);
  const int H = extent['H'], G = extent['G'], D = extent['D'], shared = H / G;
  if (!positions.fit(extent['B'], 1, extent['T']))
    throw ShapeError(fmt::format("cached_attention: positions {}..{} but the cache has T={}", positions.least,
                                 positions.largest, extent['T']));
  const FirstPositions start = positions;
  const ConstStridedTensor4 queries = qkv.query, keys = qkv.key, values = qkv.value;
  for_each_row(
      "dekoder::cached_attention", exec, long(extent['B']) * G, KOKKOS_LAMBDA(const RowTeam& team, long row) {
        const int b = int(row / G), g = int(row % G), position = start.of(b);
        Stored* new_key = &cache(b, 0, g, position, 0);
        Stored* new_value = &cache(b, 1, g, position, 0);
        team.each(D, [=](int d) {
          new_key[d] = keys(b, 0, g, d);
          new_value[d] = values(b, 0, g, d);
        });
        for (int h = g * shared; h < (g + 1) * shared; ++h) {
          const Stored* q = &queries(b, 0, h, 0);
          Stored* o = &out(b, 0, h, 0);
          Master* sum = &sums(b, h, 0);
          team.each(D, [=](int d) { sum[d] = 0; });
          Real largest = -Kokkos::Experimental::infinity_v<Real>, total = 0;
          for (int s = form.first_key(position); s <= position; ++s) {
            const Stored* k = &cache(b, 0, g, s, 0);
            const Stored* v = &cache(b, 1, g, s, 0);
            const Real score = form.scale * team.sum(D, [=](int d) { return q[d] * k[d]; });
            const Real new_largest = score > largest ? score : largest;
            const Real correction = fast_exp(largest - new_largest), weight = fast_exp(score - new_largest);
            total = total * correction + weight;
            largest = new_largest;
            team.each(D, [=](int d) { sum[d] = sum[d] * correction + weight * v[d]; });
          }
          team.each(D, [=](int d) { o[d] = sum[d] / total; });
        }
      });
}

}  // namespace dekoder
