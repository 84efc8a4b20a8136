// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "kernels/gemm.hpp"

namespace dekoder {

/// gemm() and gemm_master() by oneDNN's matmul, for results of Stored or Master, where it is built in, the
/// precision is fp32 or bf16 on a CPU and it has code for this processor, in fp32 for a shape that it is faster at;
/// false (and nothing done) otherwise. The choice is a function of processor and shape alone.
template <class Result>
bool gemm_onednn(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
                 const ConstStoredTensor2& b, Real beta, const Kokkos::View<Result**, Layout, MemSpace>& c,
                 const ConstStoredTensor1& bias);

/// Whether the processor itself multiplies bf16, so that oneDNN need not widen it.
bool onednn_multiplies_bf16();

/// "oneDNN 3.7.2"; empty where gemm_onednn() does nothing.
std::string onednn_version();

}  // namespace dekoder
