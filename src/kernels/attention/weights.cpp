// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/weights.hpp"

#include "kernels/rows.hpp"
#include "kernels/vector_math.hpp"

namespace dekoder {

void attention_weights(const ExecSpace& exec, ConstTensor4 qkv, ConstTensor2 lse, Real scale, Tensor3 weights) {
  const auto extent = attention_weights_shapes.match(qkv, lse, weights);
  const int T = extent['T'], H = extent['H'], D = extent['D'];
  for_each_row(
      "dekoder::attention_weights", exec, H * T, KOKKOS_LAMBDA(const RowTeam& team, int row) {
        const int h = row / T, t = row % T;
        const Real* q = &qkv(t, 0, h, 0);
        const Real row_lse = lse(h, t);
        Real* weight = &weights(h, t, 0);
        for (int s = 0; s <= t; ++s) {
          const Real* k = &qkv(s, 1, h, 0);
          const Real score = scale * team.sum(D, [=](int d) { return q[d] * k[d]; });
          team.once([=] { weight[s] = fast_exp(score - row_lse); });
        }
        team.each(T - 1 - t, [=](int i) { weight[t + 1 + i] = 0; });
      });
}

}  // namespace dekoder
