// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tensor/tensor.hpp"

namespace dekoder {

/// One tensor of the arena as describe shows it.
struct ArenaEntry {
  std::string name;
  std::string axes;  ///< "B,T,3,H,D"
  std::vector<std::size_t> shape;
  std::size_t bytes = 0;
};

/// All activations and scratch of a model in one allocation, planned before it is made: a measuring arena hands out
/// tensors without memory and keeps the ledger; an arena of its bytes then hands out the same tensors in the same
/// order. Nothing is given back: a decoder takes its tensors once, at construction.
class ActivationArena {
 public:
  /// A measuring arena: take() returns tensors of the right shape without memory.
  ActivationArena() = default;
  /// One allocation of `bytes`, not initialised. Throws Kokkos' allocation error where memory does not suffice.
  explicit ActivationArena(std::size_t bytes);

  /// The next tensor, aligned to 64 bytes. Throws std::logic_error past the planned bytes.
  template <class Tensor, class... Extents>
  Tensor take(const std::string& name, const std::string& axes, Extents... extents) {
    static_assert(sizeof...(Extents) == Tensor::rank(), "take: one extent per axis");
    using Value = typename Tensor::non_const_value_type;
    const std::vector<std::size_t> shape{static_cast<std::size_t>(extents)...};
    std::size_t bytes = sizeof(Value);
    for (std::size_t extent : shape) bytes *= extent;
    std::byte* place = claim(ArenaEntry{name, axes, shape, bytes});
    return Tensor(reinterpret_cast<Value*>(place), static_cast<std::size_t>(extents)...);
  }

  const std::vector<ArenaEntry>& entries() const { return entries_; }
  /// Bytes taken so far, gaps included.
  std::size_t bytes() const { return used_; }

 private:
  std::byte* claim(ArenaEntry entry);

  Kokkos::View<std::byte*, MemSpace> memory_;
  std::size_t used_ = 0;
  std::vector<ArenaEntry> entries_;
};

}  // namespace dekoder
