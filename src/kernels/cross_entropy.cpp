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

/// Whether the weights lie in the row between the passes. Short ones are computed twice instead, to be rounded
/// once; and so are those of capped logits, which stay for the slope of soft_cap, 1 - (logit / cap)^2.
template <bool capped>
constexpr bool weights_in_row = !stored_is_short && !capped;

template <bool capped>
void cross_entropy_kernel(const ExecSpace& exec, const ConstTokenTensor1& targets, int vocabulary, Real grad_scale,
                          const StoredTensor2& logits, const MasterTensor1& losses, const LossTerms& terms,
                          const MasterTensor1& z_losses) {
  const int padded = logits.extent_int(1);
  const Real z = terms.z_loss, inverse_cap = capped ? 1 / terms.soft_cap : Real(0);
  const bool with_z_losses = z_losses.size() > 0;
  for_each_row(
      "dekoder::cross_entropy", exec, long(logits.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long m) {
        Stored* row = &logits(m, 0);
        const int target = targets(m);
        const Real target_logit = row[target];
        const Real largest = team.max(vocabulary, [=](int v) { return row[v]; });
        const Real total = team.sum(vocabulary, [=](int v) {
          const Real weight = fast_exp(row[v] - largest);
          if constexpr (weights_in_row<capped>) row[v] = weight;
          return weight;
        });
        const Real normaliser = Kokkos::log(total) + largest;
        const Real factor = grad_scale * (1 + 2 * z * normaliser) / total;
        const auto slope = [=](Real logit) {
          const Real bent = logit * inverse_cap;
          return capped ? 1 - bent * bent : Real(1);
        };
        team.each(vocabulary, [=](int v) {
          const Real logit = row[v];
          const Real weight = weights_in_row<capped> ? logit : fast_exp(logit - largest);
          const Real gradient = weight * factor;
          row[v] = capped ? gradient * slope(logit) : gradient;
        });
        team.each(padded - vocabulary, [=](int v) { row[vocabulary + v] = 0; });
        team.once([=] {
          losses(m) = Kokkos::log(total) + largest - target_logit;
          if (with_z_losses) z_losses(m) = z * normaliser * normaliser;
          const Real of_target =
              weights_in_row<capped> ? Real(row[target]) : fast_exp(target_logit - largest) * factor;
          row[target] = (of_target - grad_scale) * slope(target_logit);
        });
      });
}

}  // namespace

void soft_cap(const ExecSpace& exec, Real cap, StoredTensor2 logits) {
  const auto extent = soft_cap_shapes.match(logits);
  const int V = extent['V'];
  const Real inverse = 1 / cap;
  for_each_row(
      "dekoder::soft_cap", exec, extent['M'], KOKKOS_LAMBDA(const RowTeam& team, long m) {
        Stored* row = &logits(m, 0);
        team.each(V, [=](int v) {
          const Real logit = row[v];
          row[v] = cap * fast_tanh(logit * inverse) + (logit - logit);
        });
      });
}

void cross_entropy(const ExecSpace& exec, ConstTokenTensor1 targets, int vocabulary, Real grad_scale,
                   StoredTensor2 logits, MasterTensor1 losses, const LossTerms& terms, MasterTensor1 z_losses) {
  const auto extent = cross_entropy_shapes.match(targets, logits, losses, z_losses);
  require_vocabulary("cross_entropy", vocabulary, extent['V']);
  const auto kernel = terms.soft_cap > 0 ? cross_entropy_kernel<true> : cross_entropy_kernel<false>;
  kernel(exec, targets, vocabulary, grad_scale, logits, losses, terms, z_losses);
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
