// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tensor/random_stream.hpp"

namespace dekoder {

/// The order of the windows of one source: which of W windows is its sample g. Epoch g / W, and within it a
/// permutation of [0, W) that is a function of (seed, source, epoch) alone: a Feistel network whose rounds draw
/// from a RandomStream, walked along its cycles until it lands in [0, W) (Black and Rogaway, "Ciphers with
/// arbitrary finite domains", 2002, section 4). O(1), no state.
class DataOrder {
 public:
  /// `source`: its number among those of a mixture. Throws std::logic_error for windows == 0.
  DataOrder(std::uint64_t seed, std::uint64_t windows, std::size_t source = 0);

  std::uint64_t windows() const { return windows_; }
  /// The window, in [0, windows()), of a sample.
  std::uint64_t window(std::uint64_t sample) const;

 private:
  std::uint64_t seed_, site_, windows_;
  int half_bits_;  ///< the network permutes [0, 4^half_bits)
};

/// The order of the training windows of a mixture: of which source, and which of its windows, is global sample g.
/// In every block of 65,536 samples a source has a fixed number of places, and after any number of samples its
/// share to within one of them: the shares of a batch do not go up and down by chance. What a place takes is the
/// next sample of its source's own DataOrder. O(1), no state but the table of a block; of a single source it is its
/// DataOrder.
class MixtureOrder {
 public:
  struct Place {
    std::size_t source;
    std::uint64_t window;  ///< of the source
  };

  /// `windows` of each source; `weights` of each, in any unit, or none: in proportion to the windows. Throws
  /// ConfigError for a source that has less than one place of a block, std::logic_error for no sources, unequal
  /// lengths and weights that are not positive.
  MixtureOrder(std::uint64_t seed, std::span<const std::uint64_t> windows, std::span<const double> weights);

  Place place(std::uint64_t sample) const;
  std::span<const DataOrder> sources() const { return orders_; }
  /// Of the samples, those of a source: in (0, 1].
  double share(std::size_t source) const;

 private:
  static constexpr std::uint64_t block = 65'536;
  /// A place of the block: its source, and how many of the block this source has before.
  struct Slot {
    std::uint32_t source, before;
  };

  std::vector<DataOrder> orders_;
  std::vector<std::uint64_t> counts_;  ///< places in a block, by source
  std::vector<Slot> slots_;
};

}  // namespace dekoder
