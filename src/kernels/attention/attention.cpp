// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention.hpp"

#include "kernels/attention/portable.hpp"
#include "kernels/rows.hpp"
#include "kernels/vector_math.hpp"

namespace dekoder::portable {

namespace {

/// One (b, h, t) of a row index over B*H*T, t fastest.
struct HeadRow {
  int b, h, t;
  KOKKOS_FORCEINLINE_FUNCTION HeadRow(int row, int H, int T) : b(row / (H * T)), h(row / T % H), t(row % T) {}
};

KOKKOS_FORCEINLINE_FUNCTION Real weight_factor(const Dropout& dropout, const RandomStream& stream, int t, int T,
                                               int s) {
  return dropout.active() ? dropout.factor(stream, std::uint64_t(t) * std::uint64_t(T) + std::uint64_t(s))
                          : Real(1);
}

KOKKOS_FORCEINLINE_FUNCTION Real dot(const RowTeam& team, int D, const Real* a, const Real* b) {
  return team.sum(D, [=](int d) { return a[d] * b[d]; });
}

}  // namespace

void causal_attention(const ExecSpace& exec, ConstTensor5 qkv, Real scale, const Dropout& dropout, Tensor4 out,
                      Tensor3 lse) {
  const auto extent = causal_attention_shapes.match(qkv, out, lse);
  const int B = extent['B'], T = extent['T'], H = extent['H'], D = extent['D'];
  const Dropout drop = dropout;
  for_each_row(
      "dekoder::causal_attention::portable", exec, B * H * T, KOKKOS_LAMBDA(const RowTeam& team, int row) {
        const HeadRow at(row, H, T);
        const RandomStream stream = drop.sample(at.b).child(std::uint64_t(at.h));
        const Real* q = &qkv(at.b, at.t, 0, at.h, 0);
        Real* o = &out(at.b, at.t, at.h, 0);
        team.each(D, [=](int d) { o[d] = 0; });
        Real largest = -Kokkos::Experimental::infinity_v<Real>, total = 0;
        for (int s = 0; s <= at.t; ++s) {
          const Real score = scale * dot(team, D, q, &qkv(at.b, s, 1, at.h, 0));
          const Real* v = &qkv(at.b, s, 2, at.h, 0);
          const Real new_largest = score > largest ? score : largest;
          const Real correction = fast_exp(largest - new_largest), weight = fast_exp(score - new_largest);
          const Real kept = weight * weight_factor(drop, stream, at.t, T, s);
          total = total * correction + weight;
          largest = new_largest;
          team.each(D, [=](int d) { o[d] = o[d] * correction + kept * v[d]; });
        }
        team.each(D, [=](int d) { o[d] /= total; });
        team.once([=] { lse(at.b, at.h, at.t) = largest + Kokkos::log(total); });
      });
}

void causal_attention_backward(const ExecSpace& exec, ConstTensor5 qkv, ConstTensor4 out, ConstTensor4 grad_out,
                               ConstTensor3 lse, Real scale, const Dropout& dropout, Tensor3 delta,
                               Tensor5 grad_qkv) {
  const auto extent = causal_attention_backward_shapes.match(qkv, out, grad_out, lse, delta, grad_qkv);
  const int B = extent['B'], T = extent['T'], H = extent['H'], D = extent['D'];
  const Dropout drop = dropout;
  for_each_row(
      "dekoder::causal_attention_backward::query", exec, B * H * T, KOKKOS_LAMBDA(const RowTeam& team, int row) {
        const HeadRow at(row, H, T);
        const RandomStream stream = drop.sample(at.b).child(std::uint64_t(at.h));
        const Real* q = &qkv(at.b, at.t, 0, at.h, 0);
        const Real* go = &grad_out(at.b, at.t, at.h, 0);
        Real* gq = &grad_qkv(at.b, at.t, 0, at.h, 0);
        const Real row_delta = dot(team, D, &out(at.b, at.t, at.h, 0), go), row_lse = lse(at.b, at.h, at.t);
        team.once([=] { delta(at.b, at.h, at.t) = row_delta; });
        team.each(D, [=](int d) { gq[d] = 0; });
        for (int s = 0; s <= at.t; ++s) {
          const Real* k = &qkv(at.b, s, 1, at.h, 0);
          const Real weight = fast_exp(scale * dot(team, D, q, k) - row_lse);
          const Real grad_weight =
              dot(team, D, go, &qkv(at.b, s, 2, at.h, 0)) * weight_factor(drop, stream, at.t, T, s);
          const Real grad_score = scale * weight * (grad_weight - row_delta);
          team.each(D, [=](int d) { gq[d] += grad_score * k[d]; });
        }
      });
  for_each_row(
      "dekoder::causal_attention_backward::key_value", exec, B * H * T,
      KOKKOS_LAMBDA(const RowTeam& team, int row) {
        const HeadRow at(row, H, T);
        const int s = at.t;
        const RandomStream stream = drop.sample(at.b).child(std::uint64_t(at.h));
        const Real* k = &qkv(at.b, s, 1, at.h, 0);
        const Real* v = &qkv(at.b, s, 2, at.h, 0);
        Real* gk = &grad_qkv(at.b, s, 1, at.h, 0);
        Real* gv = &grad_qkv(at.b, s, 2, at.h, 0);
        team.each(D, [=](int d) { gk[d] = gv[d] = 0; });
        for (int t = s; t < T; ++t) {
          const Real* q = &qkv(at.b, t, 0, at.h, 0);
          const Real* go = &grad_out(at.b, t, at.h, 0);
          const Real weight = fast_exp(scale * dot(team, D, q, k) - lse(at.b, at.h, t));
          const Real factor = weight_factor(drop, stream, t, T, s);
          const Real grad_score = scale * weight * (dot(team, D, go, v) * factor - delta(at.b, at.h, t));
          team.each(D, [=](int d) {
            gk[d] += grad_score * q[d];
            gv[d] += weight * factor * go[d];
          });
        }
      });
}

}  // namespace dekoder::portable

namespace dekoder {

#if defined(DEKODER_BACKEND_CUDA)
void causal_attention(const ExecSpace& exec, ConstTensor5 qkv, Real scale, const Dropout& dropout, Tensor4 out,
                      Tensor3 lse) {
  portable::causal_attention(exec, qkv, scale, dropout, out, lse);
}

void causal_attention_backward(const ExecSpace& exec, ConstTensor5 qkv, ConstTensor4 out, ConstTensor4 grad_out,
                               ConstTensor3 lse, Real scale, const Dropout& dropout, Tensor3 delta,
                               Tensor5 grad_qkv) {
  portable::causal_attention_backward(exec, qkv, out, grad_out, lse, scale, dropout, delta, grad_qkv);
}
#endif

void cached_attention(const ExecSpace& exec, ConstTensor4 qkv, int position, Real scale, Tensor5 cache,
                      Tensor3 out) {
  const auto extent = cached_attention_shapes.match(qkv, cache, out);
  const int B = extent['B'], H = extent['H'], D = extent['D'];
  if (position < 0 || position >= extent['T'])
    throw ShapeError(fmt::format("cached_attention: position {} but the cache has T={}", position, extent['T']));
  for_each_row(
      "dekoder::cached_attention", exec, B * H, KOKKOS_LAMBDA(const RowTeam& team, int row) {
        const int b = row / H, h = row % H;
        const Real* q = &qkv(b, 0, h, 0);
        Real* new_key = &cache(b, 0, h, position, 0);
        Real* new_value = &cache(b, 1, h, position, 0);
        Real* o = &out(b, h, 0);
        team.each(D, [=](int d) {
          new_key[d] = qkv(b, 1, h, d);
          new_value[d] = qkv(b, 2, h, d);
          o[d] = 0;
        });
        Real largest = -Kokkos::Experimental::infinity_v<Real>, total = 0;
        for (int s = 0; s <= position; ++s) {
          const Real* k = &cache(b, 0, h, s, 0);
          const Real* v = &cache(b, 1, h, s, 0);
          const Real score = scale * team.sum(D, [=](int d) { return q[d] * k[d]; });
          const Real new_largest = score > largest ? score : largest;
          const Real correction = fast_exp(largest - new_largest), weight = fast_exp(score - new_largest);
          total = total * correction + weight;
          largest = new_largest;
          team.each(D, [=](int d) { o[d] = o[d] * correction + weight * v[d]; });
        }
        team.each(D, [=](int d) { o[d] /= total; });
      });
}

}  // namespace dekoder
