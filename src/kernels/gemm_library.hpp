// SPDX-License-Identifier: Apache-2.0
// The products of a backend's libraries, of extents that gemm.cpp has checked: BLAS and oneDNN on CPUs
// (gemm_library_host.cpp), cublasLt on GPUs (gemm_library_cuda.cpp). These define what gemm.hpp says of libraries,
// too.
#pragma once

#include "kernels/gemm.hpp"

namespace dekoder::library {

/// As gemm(); every extent fits an int, and c has elements.
void multiply(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
              const ConstStoredTensor2& b, Real beta, const StoredTensor2& c, const ConstStoredTensor1& bias);
/// As gemm_master().
void multiply_master(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
                     const ConstStoredTensor2& b, Real beta, const MasterTensor2& c);
/// As gemm_batched().
void multiply_batched(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStridedTensor3& a,
                      const ConstStridedTensor3& b, Real beta, const StridedTensor3& c);
/// As gemm_batched_master().
void multiply_batched_master(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStridedTensor3& a,
                             const ConstStridedTensor3& b, Real beta, const MasterStridedTensor3& c);

}  // namespace dekoder::library
