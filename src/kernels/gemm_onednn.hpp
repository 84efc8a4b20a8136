// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "kernels/gemm.hpp"

namespace dekoder {

/// c(M,N) = alpha op(a) op(b) + beta c [+ bias] by oneDNN's matmul, for factors and results of Stored or Master,
/// where it is built in, factors are fp32 or bf16 on a CPU, and it is the faster way: in bf16 where it has
/// instructions of the processor for it, in fp32 for some shapes; false (and nothing done) otherwise. The choice is
/// a function of processor and shape alone.
template <class Factor, class Result>
bool gemm_onednn(const ExecSpace& exec, Op op_a, Op op_b, Real alpha,
                 const Kokkos::View<const Factor**, Layout, MemSpace>& a,
                 const Kokkos::View<const Factor**, Layout, MemSpace>& b, Real beta,
                 const Kokkos::View<Result**, Layout, MemSpace>& c,
                 const Kokkos::View<const Factor*, Layout, MemSpace>& bias);

/// Whether the processor multiplies bf16 faster than fp32: by AMX, or by AVX512_BF16. Not Intel's from Sapphire
/// Rapids on where AMX is hidden, as virtual machines do: theirs issue a VDPBF16PS for every four fp32
/// multiply-adds.
bool onednn_multiplies_bf16();

/// "oneDNN 3.7.2"; empty where gemm_onednn() does nothing.
std::string onednn_version();

}  // namespace dekoder
