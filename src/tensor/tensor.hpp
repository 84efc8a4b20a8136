// SPDX-License-Identifier: Apache-2.0
// The one place that names an execution space, a memory space, a layout or a precision.
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <type_traits>

#include "base/error.hpp"
#include "base/token.hpp"
#include "tensor/bfloat16.hpp"

namespace dekoder {

#if defined(DEKODER_BACKEND_CUDA)
using ExecSpace = Kokkos::Cuda;
using PinnedSpace = Kokkos::CudaHostPinnedSpace;
#else
using ExecSpace = Kokkos::OpenMP;
using PinnedSpace = Kokkos::HostSpace;
#endif
using MemSpace = ExecSpace::memory_space;
using Layout = Kokkos::LayoutRight;
inline constexpr bool device_is_host = Kokkos::SpaceAccessibility<Kokkos::HostSpace, MemSpace>::accessible;

#if defined(DEKODER_PRECISION_DOUBLE)
using Real = double;
#else
using Real = float;
#endif
/// The three roles of a number of the model, so that weights and activations may be kept shorter than what is added
/// up and updated. Real is what kernels compute in; Master what must keep every bit: parameters and their
/// gradients, moments, statistics of rows, losses, partial sums; Stored what products read and kernels hand on:
/// weights as products read them, activations and their gradients. Mixed precision (Micikevicius et al. 2018,
/// section 3.1; bfloat16 has fp32's range, so that no loss needs scaling) makes another type of it.
using Master = Real;
#if defined(DEKODER_PRECISION_BF16)
using Stored = BFloat16;
inline constexpr const char* precision_name = "bf16";
#elif defined(DEKODER_PRECISION_DOUBLE)
using Stored = Real;
inline constexpr const char* precision_name = "double";
#else
using Stored = Real;
inline constexpr const char* precision_name = "float";
#endif
/// Whether weights and activations have a type of their own.
inline constexpr bool stored_is_short = !std::is_same_v<Stored, Master>;
/// What sums over tokens, tensors and ranks are kept in.
using Accumulator = double;

using MasterTensor1 = Kokkos::View<Master*, Layout, MemSpace>;
using MasterTensor2 = Kokkos::View<Master**, Layout, MemSpace>;
using MasterTensor3 = Kokkos::View<Master***, Layout, MemSpace>;
using ConstMasterTensor1 = Kokkos::View<const Master*, Layout, MemSpace>;
using ConstMasterTensor2 = Kokkos::View<const Master**, Layout, MemSpace>;
using ConstMasterTensor3 = Kokkos::View<const Master***, Layout, MemSpace>;
using StoredTensor1 = Kokkos::View<Stored*, Layout, MemSpace>;
using StoredTensor2 = Kokkos::View<Stored**, Layout, MemSpace>;
using StoredTensor3 = Kokkos::View<Stored***, Layout, MemSpace>;
using StoredTensor4 = Kokkos::View<Stored****, Layout, MemSpace>;
using StoredTensor5 = Kokkos::View<Stored*****, Layout, MemSpace>;
using ConstStoredTensor1 = Kokkos::View<const Stored*, Layout, MemSpace>;
using ConstStoredTensor2 = Kokkos::View<const Stored**, Layout, MemSpace>;
using ConstStoredTensor3 = Kokkos::View<const Stored***, Layout, MemSpace>;
using ConstStoredTensor4 = Kokkos::View<const Stored****, Layout, MemSpace>;
using ConstStoredTensor5 = Kokkos::View<const Stored*****, Layout, MemSpace>;
/// Parts of such tensors with gaps, e.g. the queries of one sequence within qkv(B,T,3,H,D).
using StridedTensor3 = Kokkos::View<Stored***, Kokkos::LayoutStride, MemSpace>;
using MasterStridedTensor3 = Kokkos::View<Master***, Kokkos::LayoutStride, MemSpace>;
using StridedTensor4 = Kokkos::View<Stored****, Kokkos::LayoutStride, MemSpace>;
using ConstStridedTensor3 = Kokkos::View<const Stored***, Kokkos::LayoutStride, MemSpace>;
using ConstStridedTensor4 = Kokkos::View<const Stored****, Kokkos::LayoutStride, MemSpace>;
/// Of Real, where no role is at stake: in tests.
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
using AccumulatorTensor3 = Kokkos::View<Accumulator***, Layout, MemSpace>;
using IntTensor1 = Kokkos::View<int*, Layout, MemSpace>;
using ByteTensor1 = Kokkos::View<std::uint8_t*, Layout, MemSpace>;
using ConstByteTensor1 = Kokkos::View<const std::uint8_t*, Layout, MemSpace>;
using TokenTensor1 = Kokkos::View<Token*, Layout, MemSpace>;
using TokenTensor2 = Kokkos::View<Token**, Layout, MemSpace>;
using ConstTokenTensor1 = Kokkos::View<const Token*, Layout, MemSpace>;
using ConstTokenTensor2 = Kokkos::View<const Token**, Layout, MemSpace>;
using HostTokenTensor2 = Kokkos::View<Token**, Layout, Kokkos::HostSpace>;

/// The same contiguous memory under another shape, e.g. reshape<StoredTensor5>(qkv, B, T, 3, H, D).
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
Tensor rows(const Tensor& tensor, long begin, long end) {
  static_assert(Tensor::rank() == 1 || Tensor::rank() == 2);
  if constexpr (Tensor::rank() == 1)
    return Kokkos::subview(tensor, Kokkos::make_pair(begin, end));
  else
    return Kokkos::subview(tensor, Kokkos::make_pair(begin, end), Kokkos::ALL);
}

}  // namespace dekoder
