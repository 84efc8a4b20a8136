// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tensor/activation_arena.hpp"

namespace dekoder {

/// The residual stream or its gradient, (N,C): of stored numbers, or of master ones (training.residual), for what
/// is added up over all blocks is rounded by every one of them. Kernels that touch it take either.
class ResidualTensor2 {
 public:
  ResidualTensor2() = default;
  ResidualTensor2(const StoredTensor2& tensor) : stored_(tensor) {}
  template <class Tensor>
    requires(stored_is_short && std::is_same_v<Tensor, MasterTensor2>)
  ResidualTensor2(const Tensor& tensor) : is_stored_(false), master_(tensor) {}

  /// See ActivationArena::take; master numbers where `as_master`.
  static ResidualTensor2 take(ActivationArena& arena, const std::string& name, long tokens, int channels,
                              bool as_master) {
    if constexpr (stored_is_short)
      if (as_master) return arena.take<MasterTensor2>(name, "N,C", tokens, channels);
    return arena.take<StoredTensor2>(name, "N,C", tokens, channels);
  }

  bool is_stored() const { return is_stored_; }
  /// Empty where it is of master numbers.
  const StoredTensor2& stored() const { return stored_; }
  /// body(tensor) for the one that it is.
  template <class Body>
  void visit(const Body& body) const {
    if constexpr (stored_is_short)
      if (!is_stored_) return body(master_);
    body(stored_);
  }
  /// body(tensor, the other tensor), which is of the same type. Throws ShapeError where it is not.
  template <class Body>
  void visit_with(const ResidualTensor2& other, const Body& body) const {
    if (is_stored_ != other.is_stored_) throw ShapeError("residual tensors of two types");
    if constexpr (stored_is_short)
      if (!is_stored_) return body(master_, other.master_);
    body(stored_, other.stored_);
  }

  // As a tensor's, for shape signatures.
  static constexpr unsigned rank() { return StoredTensor2::rank(); }
  std::size_t extent(std::size_t axis) const { return is_stored_ ? stored_.extent(axis) : master_.extent(axis); }
  std::size_t size() const { return extent(0) * extent(1); }
  const void* data() const { return is_stored_ ? static_cast<const void*>(stored_.data()) : master_.data(); }

 private:
  bool is_stored_ = true;
  StoredTensor2 stored_;
  MasterTensor2 master_;
};

}  // namespace dekoder
