// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tensor/random_stream.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// Inverted dropout (Srivastava et al. 2014, section 10) as a pure function: an element is kept where its random
/// number is >= rate and then scaled by 1 / (1 - rate). The same (stream, sample, element) gives the same answer in
/// forward, backward and recomputation, on any rank.
struct Dropout {
  Real rate = 0;                   ///< 0: off
  RandomStream stream;             ///< of (seed, site, step)
  std::uint64_t first_sample = 0;  ///< global sample index of sequence b = 0

  KOKKOS_INLINE_FUNCTION bool active() const { return rate > 0; }

  /// The stream of sequence b of this batch.
  KOKKOS_INLINE_FUNCTION RandomStream sample(int b) const {
    return stream.child(first_sample + static_cast<std::uint64_t>(b));
  }
  /// Factor of one element under the stream of its sequence: 0 or 1 / (1 - rate).
  KOKKOS_INLINE_FUNCTION Real factor(const RandomStream& sample_stream, std::uint64_t element) const {
    return sample_stream.uniform(element) < static_cast<float>(rate) ? Real(0) : Real(1) / (Real(1) - rate);
  }
};

}  // namespace dekoder
