// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tensor/shape_signature.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// What is said of one attention head in one number; the order of attention_statistics' last axis. w[t,s] is the
/// weight of query t on key s <= t, T the number of queries. The last five are the share of the head's weight that
/// lies on a pattern of (t,s), the sum of w over the pattern divided by the sum of w: the score of TransformerLens'
/// head detector (transformer_lens/head_detector.py, detect_head with error_measure="mul"), with its patterns for
/// previous-token, duplicate-token and induction heads.
enum class AttentionStatistic {
  entropy,  ///< mean over t of -sum_s w ln w, in nats, at least 0: 0 for one key alone, ln(t + 1) for all alike
  mean_distance,    ///< mean over t of sum_s w (t - s), in tokens
  previous_token,   ///< s = t - 1
  first_token,      ///< s = 0
  same_token,       ///< s = t, the diagonal
  duplicate_token,  ///< s < t and token[s] = token[t]: earlier places of the query's token
  induction,  ///< token[s - 1] = token[t]: what followed an earlier place of the query's token (Olsson et al.,
              ///< In-context Learning and Induction Heads, 2022). s = t counts where a token repeats itself at
              ///< once, as in the detector.
};
inline constexpr int attention_statistic_count = 7;

/// "entropy", "mean_distance" ...: the enumerator's name.
const char* attention_statistic_name(AttentionStatistic statistic);

/// The statistics of every head of one layer for one sequence, from weights as attention_weights makes them: rows
/// sum to 1, what lies above the diagonal is not read. Sums are kept in double and taken in one order on any number
/// of threads. NaN in a head's weights makes all its statistics NaN. Heads are independent: pass one or some of
/// them where memory for the weights of all is too much. Overwrites statistics and sums, which is scratch. Throws
/// ShapeError.
inline constexpr ShapeSignature attention_statistics_shapes{
    "attention_statistics", "weights(H,T,T) tokens(T) -> sums(H,T,8) statistics(H,7)"};
void attention_statistics(const ExecSpace& exec, ConstMasterTensor3 weights, ConstTokenTensor1 tokens,
                          AccumulatorTensor3 sums, MasterTensor2 statistics);

}  // namespace dekoder
