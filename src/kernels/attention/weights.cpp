// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/weights.hpp"

#include "kernels/rows.hpp"
#include "kernels/vector_math.hpp"

namespace dekoder {

void attention_weights(const ExecSpace& exec, ConstStridedTensor3 q, ConstStridedTensor3 k, ConstMasterTensor2 lse,
                       AttentionForm form, MasterTensor3 weights) {
  const auto extent = attention_weights_shapes.match(q, k, lse, weights);
  const int T = extent['T'], H = extent['H'], D = extent['D'], G = extent['G'];
  if (G == 0 || H % G != 0)
    throw ShapeError(fmt::format("attention_weights: {} heads of queries share {} of keys", H, G));
  require_window("attention_weights", form);
  const int shared = H / G;
  for_each_row(
      "dekoder::attention_weights", exec, long(H) * T, KOKKOS_LAMBDA(const RowTeam& team, long row) {
        const int h = int(row / T), t = int(row % T);
        const Stored* query = &q(t, h, 0);
        const Real row_lse = lse(h, t);
        Master* weight = &weights(h, t, 0);
        const int first = form.first_key(t);
        team.each(first, [=](int s) { weight[s] = 0; });
        for (int s = first; s <= t; ++s) {
          const Stored* key = &k(s, h / shared, 0);
          const Real score = form.scale * team.sum(D, [=](int d) { return query[d] * key[d]; });
          team.once([=] { weight[s] = fast_exp(score - row_lse); });
        }
        team.each(T - 1 - t, [=](int i) { weight[t + 1 + i] = 0; });
      });
}

}  // namespace dekoder
