// SPDX-License-Identifier: Apache-2.0
#include "kernels/cross_entropy.hpp"

#include "kernels/rows.hpp"
#include "kernels/vector_math.hpp"

namespace dekoder {

namespace {

void require_vocabulary(const char* function, int vocabulary, int columns) {
  if (vocabulary < 1 || vocabulary > columns)
    throw ShapeError(fmt::format("{}: vocabulary {} but logits have V={} columns", function, vocabulary, columns));
}

}  // namespace

void cross_entropy(const ExecSpace& exec, ConstTokenTensor1 targets, int vocabulary, Real grad_scale,
                   StoredTensor2 logits, MasterTensor1 losses) {
  const auto extent = cross_entropy_shapes.match(targets, logits, losses);
  const int padded = extent['V'];
  require_vocabulary("cross_entropy", vocabulary, padded);
  for_each_row(
      "dekoder::cross_entropy", exec, extent['M'], KOKKOS_LAMBDA(const RowTeam& team, long m) {
        Stored* row = &logits(m, 0);
        const int target = targets(m);
        const Real target_logit = row[target];
        const Real largest = team.max(vocabulary, [=](int v) { return row[v]; });
        // The weights lie in the row between the passes; short ones are computed twice instead, to be rounded once.
        const Real total = team.sum(vocabulary, [=](int v) {
          const Real weight = fast_exp(row[v] - largest);
          if constexpr (!stored_is_short) row[v] = weight;
          return weight;
        });
        const Real factor = grad_scale / total;
        team.each(vocabulary, [=](int v) {
          const Real weight = stored_is_short ? fast_exp(row[v] - largest) : Real(row[v]);
          row[v] = weight * factor;
        });
        team.each(padded - vocabulary, [=](int v) { row[vocabulary + v] = 0; });
        team.once([=] {
          losses(m) = Kokkos::log(total) + largest - target_logit;
          const Real of_target = stored_is_short ? fast_exp(target_logit - largest) * factor : Real(row[target]);
          row[target] = of_target - grad_scale;
        });
      });
}

void cross_entropy_loss(const ExecSpace& exec, ConstTokenTensor1 targets, int vocabulary, ConstStoredTensor2 logits,
                        MasterTensor1 losses) {
  const auto extent = cross_entropy_loss_shapes.match(targets, logits, losses);
  require_vocabulary("cross_entropy_loss", vocabulary, extent['V']);
  for_each_row(
      "dekoder::cross_entropy_loss", exec, extent['M'], KOKKOS_LAMBDA(const RowTeam& team, long m) {
        const Stored* row = &logits(m, 0);
        const Real largest = team.max(vocabulary, [=](int v) { return row[v]; });
        const Real total = team.sum(vocabulary, [=](int v) { return fast_exp(row[v] - largest); });
        team.once([=] { losses(m) = Kokkos::log(total) + largest - row[targets(m)]; });
      });
}

}  // namespace dekoder
