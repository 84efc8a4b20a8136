// SPDX-License-Identifier: Apache-2.0
// The one place that names an execution space, a memory space, a layout or a precision.
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

#include "base/error.hpp"

namespace dekoder {

#if defined(DEKODER_BACKEND_CUDA)
using ExecSpace = Kokkos::Cuda;
#else
using ExecSpace = Kokkos::OpenMP;
#endif
using MemSpace = ExecSpace::memory_space;
using Layout = Kokkos::LayoutRight;
inline constexpr bool device_is_host = Kokkos::SpaceAccessibility<Kokkos::HostSpace, MemSpace>::accessible;

#if defined(DEKODER_REAL_DOUBLE)
using Real = double;
inline constexpr const char* real_name = "double";
#else
using Real = float;
inline constexpr const char* real_name = "float";
#endif
/// What sums over tokens, tensors and ranks are kept in.
using Accumulator = double;
/// A vocabulary index on the device.
using Token = std::int32_t;

using Tensor1 = Kokkos::View<Real*, Layout, MemSpace>;
using Tensor2 = Kokkos::View<Real**, Layout, MemSpace>;
using Tensor3 = Kokkos::View<Real***, Layout, MemSpace>;
using Tensor4 = Kokkos::View<Real****, Layout, MemSpace>;
using Tensor5 = Kokkos::View<Real*****, Layout, MemSpace>;
using ConstTensor1 = Kokkos::View<const Real*, Layout, MemSpace>;
using ConstTensor2 = Kokkos::View<const Real**, Layout, MemSpace>;
using ConstTensor3 = Kokkos::View<const Real***, Layout, MemSpace>;
using ConstTensor4 = Kokkos::View<const Real****, Layout, MemSpace>;
using ConstTensor5 = Kokkos::View<const Real*****, Layout, MemSpace>;
using AccumulatorTensor1 = Kokkos::View<Accumulator*, Layout, MemSpace>;
using AccumulatorTensor2 = Kokkos::View<Accumulator**, Layout, MemSpace>;
using IntTensor1 = Kokkos::View<int*, Layout, MemSpace>;
using ByteTensor1 = Kokkos::View<std::uint8_t*, Layout, MemSpace>;
using ConstByteTensor1 = Kokkos::View<const std::uint8_t*, Layout, MemSpace>;
using TokenTensor1 = Kokkos::View<Token*, Layout, MemSpace>;
using TokenTensor2 = Kokkos::View<Token**, Layout, MemSpace>;
using ConstTokenTensor1 = Kokkos::View<const Token*, Layout, MemSpace>;
using ConstTokenTensor2 = Kokkos::View<const Token**, Layout, MemSpace>;
using HostTokenTensor2 = Kokkos::View<Token**, Layout, Kokkos::HostSpace>;

/// The same contiguous memory under another shape, e.g. reshape<Tensor5>(qkv, B, T, 3, H, D).
/// Throws ShapeError where the number of elements differs or `tensor` has gaps.
template <class To, class From, class... Extents>
To reshape(const From& tensor, Extents... extents) {
  static_assert(sizeof...(Extents) == To::rank(), "reshape takes one extent per axis of the result");
  const std::size_t elements = (std::size_t{1} * ... * static_cast<std::size_t>(extents));
  if (elements != tensor.size() || !tensor.span_is_contiguous())
    throw ShapeError(fmt::format("reshape: {} elements{} into {}", tensor.size(),
                                 tensor.span_is_contiguous() ? "" : " with gaps", elements));
  return To(tensor.data(), static_cast<std::size_t>(extents)...);
}

/// Rows [begin, end) of axis 0, e.g. one chunk of tokens.
template <class Tensor>
Tensor rows(const Tensor& tensor, int begin, int end) {
  static_assert(Tensor::rank() == 1 || Tensor::rank() == 2);
  if constexpr (Tensor::rank() == 1)
    return Kokkos::subview(tensor, Kokkos::make_pair(begin, end));
  else
    return Kokkos::subview(tensor, Kokkos::make_pair(begin, end), Kokkos::ALL);
}

}  // namespace dekoder
