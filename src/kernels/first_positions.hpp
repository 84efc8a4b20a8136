// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tensor/tensor.hpp"

namespace dekoder {

/// Where the tokens of each sequence of a pass begin in its text: all at one position, or sequence b at each(b), on
/// the device. Functions check `least` and `largest`, which are known here.
struct FirstPositions {
  int least, largest;
  IntTensor1 each;  ///< (B), or empty

  FirstPositions(int all) : least(all), largest(all) {}
  FirstPositions(const IntTensor1& of_each, int least_of_all, int largest_of_all)
      : least(least_of_all), largest(largest_of_all), each(of_each) {}

  KOKKOS_INLINE_FUNCTION int of(long sequence) const { return each.data() == nullptr ? least : each(sequence); }

  /// Whether they are those of B sequences of `tokens` each, within `end` positions.
  bool fit(long sequences, long tokens, long end) const {
    return least >= 0 && largest + tokens <= end && (each.size() == 0 || long(each.extent(0)) == sequences);
  }
};

}  // namespace dekoder
