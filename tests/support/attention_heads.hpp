// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>

#include "kernels/attention/attention.hpp"

namespace dekoder::testing {

/// The queries, keys and values within qkv(B,T,H + 2 G,D).
inline Heads heads_of(const StoredTensor4& qkv, int H, int G) {
  const auto part = [&](int first, int count) {
    return StridedTensor4(
        Kokkos::subview(qkv, Kokkos::ALL, Kokkos::ALL, Kokkos::make_pair(first, first + count), Kokkos::ALL));
  };
  return {part(0, H), part(H, G), part(H + G, G)};
}

/// Scratch for causal_attention and its gradient: NaN, as nothing may be read of it.
inline MasterTensor1 attention_scores(int B, int T, int G) {
  const MasterTensor1 scores("scores", attention_score_elements(B, T, G));
  Kokkos::deep_copy(scores, std::numeric_limits<Master>::quiet_NaN());
  return scores;
}

}  // namespace dekoder::testing
