// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention.hpp"

#include "kernels/attention/portable.hpp"
#include "kernels/rows.hpp"
#include "kernels/vector_math.hpp"

namespace dekoder {

Heads split_heads(const StoredTensor2& qkv, int sequences, int query_heads, int key_value_heads) {
  const std::size_t B = std::size_t(sequences), H = std::size_t(query_heads), G = std::size_t(key_value_heads);
  const std::size_t N = qkv.extent(0), row = qkv.extent(1), heads = H + 2 * G;
  if (B == 0 || G == 0 || N % B != 0 || row % heads != 0 || !qkv.span_is_contiguous())
    throw ShapeError(fmt::format(
        "split_heads: qkv is ({},{}); expected B={} sequences of rows of {} + 2 * {} heads", N, row, B, H, G));
  const std::size_t T = N / B, D = row / heads;
  const auto part = [&](std::size_t first, std::size_t count) {
    return StridedTensor4(qkv.data() + first * D, Kokkos::LayoutStride(B, T * row, T, row, count, D, D, 1));
  };
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

}  // namespace dekoder

namespace dekoder::portable {

namespace {

/// One (b, h, t) of a row index over B*H*T, t fastest.
struct HeadRow {
  int b, h, t;
  KOKKOS_FORCEINLINE_FUNCTION HeadRow(long row, int H, int T)
      : b(int(row / (long(H) * T))), h(int(row / T % H)), t(int(row % T)) {}
};

KOKKOS_FORCEINLINE_FUNCTION Real weight_factor(const Dropout& dropout, const RandomStream& stream, int t, int T,
                                               int s) {
  return dropout.active() ? dropout.factor(stream, std::uint64_t(t) * std::uint64_t(T) + std::uint64_t(s))
                          : Real(1);
}

KOKKOS_FORCEINLINE_FUNCTION Real dot(const RowTeam& team, int D, const Stored* a, const Stored* b) {
  return team.sum(D, [=](int d) { return a[d] * b[d]; });
}

}  // namespace

void causal_attention(const ExecSpace& exec, const ConstHeads& qkv, Real scale, const Dropout& dropout,
                      StoredTensor4 out, MasterTensor3 lse) {
  const auto extent = causal_attention_shapes.match(qkv.query, qkv.key, qkv.value, out, lse);
  require_heads("causal_attention", qkv);
  const int T = extent['T'], H = extent['H'], D = extent['D'], shared = H / extent['G'];
  const Dropout drop = dropout;
  const ConstStridedTensor4 queries = qkv.query, keys = qkv.key, values = qkv.value;
  for_each_row(
      "dekoder::causal_attention::portable", exec, long(extent['B']) * H * T,
      KOKKOS_LAMBDA(const RowTeam& team, long row) {
        const HeadRow at(row, H, T);
        const int g = at.h / shared;
        const RandomStream stream = drop.sample(at.b).child(std::uint64_t(at.h));
        const Stored* q = &queries(at.b, at.t, at.h, 0);
        Stored* o = &out(at.b, at.t, at.h, 0);
        team.each(D, [=](int d) { o[d] = 0; });
        Real largest = -Kokkos::Experimental::infinity_v<Real>, total = 0;
        for (int s = 0; s <= at.t; ++s) {
          const Real score = scale * dot(team, D, q, &keys(at.b, s, g, 0));
          const Stored* v = &values(at.b, s, g, 0);
          const Real new_largest = score > largest ? score : largest;
          const Real correction = fast_exp(largest - new_largest), weight = fast_exp(score - new_largest);
          const Real kept = weight * weight_factor(drop, stream, at.t, T, s);
          total = total * correction + weight;
          largest = new_largest;
          team.each(D, [=](int d) { o[d] = o[d] * correction + kept * v[d]; });
        }
        team.each(D, [=](int d) { o[d] = o[d] / total; });
        team.once([=] { lse(at.b, at.h, at.t) = largest + Kokkos::log(total); });
      });
}

void causal_attention_backward(const ExecSpace& exec, const ConstHeads& qkv, ConstStoredTensor4 out,
                               ConstStoredTensor4 grad_out, ConstMasterTensor3 lse, Real scale,
                               const Dropout& dropout, MasterTensor3 delta, const Heads& grad_qkv) {
  const auto extent = causal_attention_backward_shapes.match(qkv.query, qkv.key, qkv.value, out, grad_out, lse,
                                                             delta, grad_qkv.query, grad_qkv.key, grad_qkv.value);
  require_heads("causal_attention_backward", qkv);
  require_heads("causal_attention_backward", grad_qkv);
  const int T = extent['T'], H = extent['H'], G = extent['G'], D = extent['D'], shared = H / G;
  const Dropout drop = dropout;
  const ConstStridedTensor4 queries = qkv.query, keys = qkv.key, values = qkv.value;
  const StridedTensor4 grad_queries = grad_qkv.query, grad_keys = grad_qkv.key, grad_values = grad_qkv.value;
  for_each_row(
      "dekoder::causal_attention_backward::query", exec, long(extent['B']) * H * T,
      KOKKOS_LAMBDA(const RowTeam& team, long row) {
        const HeadRow at(row, H, T);
        const int g = at.h / shared;
        const RandomStream stream = drop.sample(at.b).child(std::uint64_t(at.h));
        const Stored* q = &queries(at.b, at.t, at.h, 0);
        const Stored* go = &grad_out(at.b, at.t, at.h, 0);
        Stored* gq = &grad_queries(at.b, at.t, at.h, 0);
        const Real row_delta = dot(team, D, &out(at.b, at.t, at.h, 0), go), row_lse = lse(at.b, at.h, at.t);
        team.once([=] { delta(at.b, at.h, at.t) = row_delta; });
        team.each(D, [=](int d) { gq[d] = 0; });
        for (int s = 0; s <= at.t; ++s) {
          const Stored* k = &keys(at.b, s, g, 0);
          const Real weight = fast_exp(scale * dot(team, D, q, k) - row_lse);
          const Real grad_weight =
              dot(team, D, go, &values(at.b, s, g, 0)) * weight_factor(drop, stream, at.t, T, s);
          const Real grad_score = scale * weight * (grad_weight - row_delta);
          team.each(D, [=](int d) { gq[d] = gq[d] + grad_score * k[d]; });
        }
      });
  for_each_row(
      "dekoder::causal_attention_backward::key_value", exec, long(extent['B']) * G * T,
      KOKKOS_LAMBDA(const RowTeam& team, long row) {
        const HeadRow at(row, G, T);
        const int s = at.t;
        const Stored* k = &keys(at.b, s, at.h, 0);
        const Stored* v = &values(at.b, s, at.h, 0);
        Stored* gk = &grad_keys(at.b, s, at.h, 0);
        Stored* gv = &grad_values(at.b, s, at.h, 0);
        team.each(D, [=](int d) { gk[d] = gv[d] = 0; });
        for (int h = at.h * shared; h < (at.h + 1) * shared; ++h) {
          const RandomStream stream = drop.sample(at.b).child(std::uint64_t(h));
          for (int t = s; t < T; ++t) {
            const Stored* q = &queries(at.b, t, h, 0);
            const Stored* go = &grad_out(at.b, t, h, 0);
            const Real weight = fast_exp(scale * dot(team, D, q, k) - lse(at.b, h, t));
            const Real factor = weight_factor(drop, stream, t, T, s);
            const Real grad_score = scale * weight * (dot(team, D, go, v) * factor - delta(at.b, h, t));
            team.each(D, [=](int d) {
              gk[d] = gk[d] + grad_score * q[d];
              gv[d] = gv[d] + weight * factor * go[d];
            });
          }
        }
      });
}

}  // namespace dekoder::portable

namespace dekoder {

#if defined(DEKODER_ROW_TEAMS)
std::size_t attention_scratch_bytes(int, int, int, int, int) {
  return 0;
}

void causal_attention(const ExecSpace& exec, const ConstHeads& qkv, Real scale, const Dropout& dropout,
                      StoredTensor4 out, MasterTensor3 lse) {
  portable::causal_attention(exec, qkv, scale, dropout, out, lse);
}

void causal_attention_backward(const ExecSpace& exec, const ConstHeads& qkv, ConstStoredTensor4 out,
                               ConstStoredTensor4 grad_out, ConstMasterTensor3 lse, Real scale,
                               const Dropout& dropout, MasterTensor3 delta, const Heads& grad_qkv) {
  portable::causal_attention_backward(exec, qkv, out, grad_out, lse, scale, dropout, delta, grad_qkv);
}
#endif

void cached_attention(const ExecSpace& exec, const ConstHeads& qkv, int position, Real scale, StoredTensor5 cache,
                      StoredTensor4 out) {
  const auto extent = cached_attention_shapes.match(qkv.query, qkv.key, qkv.value, cache, out);
  require_heads("cached_attention", qkv);
  const int H = extent['H'], G = extent['G'], D = extent['D'], shared = H / G;
  if (position < 0 || position >= extent['T'])
    throw ShapeError(fmt::format("cached_attention: position {} but the cache has T={}", position, extent['T']));
  const ConstStridedTensor4 queries = qkv.query, keys = qkv.key, values = qkv.value;
  for_each_row(
      "dekoder::cached_attention", exec, long(extent['B']) * G, KOKKOS_LAMBDA(const RowTeam& team, long row) {
        const int b = int(row / G), g = int(row % G);
        Stored* new_key = &cache(b, 0, g, position, 0);
        Stored* new_value = &cache(b, 1, g, position, 0);
        team.each(D, [=](int d) {
          new_key[d] = keys(b, 0, g, d);
          new_value[d] = values(b, 0, g, d);
        });
        for (int h = g * shared; h < (g + 1) * shared; ++h) {
          const Stored* q = &queries(b, 0, h, 0);
          Stored* o = &out(b, 0, h, 0);
          team.each(D, [=](int d) { o[d] = 0; });
          Real largest = -Kokkos::Experimental::infinity_v<Real>, total = 0;
          for (int s = 0; s <= position; ++s) {
            const Stored* k = &cache(b, 0, g, s, 0);
            const Stored* v = &cache(b, 1, g, s, 0);
            const Real score = scale * team.sum(D, [=](int d) { return q[d] * k[d]; });
            const Real new_largest = score > largest ? score : largest;
            const Real correction = fast_exp(largest - new_largest), weight = fast_exp(score - new_largest);
            total = total * correction + weight;
            largest = new_largest;
            team.each(D, [=](int d) { o[d] = o[d] * correction + weight * v[d]; });
          }
          team.each(D, [=](int d) { o[d] = o[d] / total; });
        }
      });
}

}  // namespace dekoder
