// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/statistics.hpp"

namespace dekoder {

namespace {

// Columns of the sums of one query: the statistics in their order, then the query's total weight.
constexpr int total_column = attention_statistic_count;
constexpr int first_share = int(AttentionStatistic::previous_token);  // the ones before it are means over queries
static_assert(int(AttentionStatistic::induction) + 1 == attention_statistic_count);

/// The sums over keys of every query: one thread each.
void sum_queries(const ExecSpace& exec, const ConstMasterTensor3& weights, const ConstTokenTensor1& tokens,
                 const AccumulatorTensor3& sums) {
  const long T = tokens.extent_int(0), H = weights.extent_int(0);
  Kokkos::parallel_for(
      "dekoder::attention_statistics::query",
      Kokkos::RangePolicy<ExecSpace, Kokkos::IndexType<long>>(exec, 0, H * T), KOKKOS_LAMBDA(long row) {
        const int h = int(row / T), t = int(row % T);
        const Master* weight_row = &weights(h, t, 0);
        const Token token = tokens(t);
        Accumulator entropy = 0, distance = 0, duplicate = 0, induction = 0, total = 0;
        for (int s = 0; s <= t; ++s) {
          const Accumulator weight = weight_row[s];
          if (weight != 0) entropy -= weight * Accumulator(Kokkos::log(weight_row[s]));
          distance += weight * (t - s);
          if (s < t && tokens(s) == token) duplicate += weight;
          if (s > 0 && tokens(s - 1) == token) induction += weight;
          total += weight;
        }
        // a weight that rounding left above 1 would make it negative; NaN stays
        sums(h, t, int(AttentionStatistic::entropy)) = entropy < 0 ? Accumulator(0) : entropy;
        sums(h, t, int(AttentionStatistic::mean_distance)) = distance;
        sums(h, t, int(AttentionStatistic::previous_token)) = t > 0 ? weight_row[t - 1] : Real(0);
        sums(h, t, int(AttentionStatistic::first_token)) = weight_row[0];
        sums(h, t, int(AttentionStatistic::same_token)) = weight_row[t];
        sums(h, t, int(AttentionStatistic::duplicate_token)) = duplicate;
        sums(h, t, int(AttentionStatistic::induction)) = induction;
        sums(h, t, total_column) = total;
      });
}

}  // namespace

const char* attention_statistic_name(AttentionStatistic statistic) {
  switch (statistic) {
    case AttentionStatistic::entropy:
      return "entropy";
    case AttentionStatistic::mean_distance:
      return "mean_distance";
    case AttentionStatistic::previous_token:
      return "previous_token";
    case AttentionStatistic::first_token:
      return "first_token";
    case AttentionStatistic::same_token:
      return "same_token";
    case AttentionStatistic::duplicate_token:
      return "duplicate_token";
    case AttentionStatistic::induction:
      return "induction";
  }
  return "?";
}

void attention_statistics(const ExecSpace& exec, ConstMasterTensor3 weights, ConstTokenTensor1 tokens,
                          AccumulatorTensor3 sums, MasterTensor2 statistics) {
  static_assert(total_column + 1 == 8, "the last axis of sums in the signature");
  const auto extent = attention_statistics_shapes.match(weights, tokens, sums, statistics);
  const int T = extent['T'], H = extent['H'];
  sum_queries(exec, weights, tokens, sums);
  Kokkos::parallel_for(
      "dekoder::attention_statistics::head", Kokkos::RangePolicy<ExecSpace>(exec, 0, H), KOKKOS_LAMBDA(int h) {
        Accumulator sum[total_column + 1] = {};
        for (int t = 0; t < T; ++t)
          for (int column = 0; column <= total_column; ++column) sum[column] += sums(h, t, column);
        for (int i = 0; i < attention_statistic_count; ++i)
          statistics(h, i) = Real(sum[i] / (i < first_share ? Accumulator(T) : sum[total_column]));
      });
}

}  // namespace dekoder
