// SPDX-License-Identifier: Apache-2.0
// What the libraries of a backend give to gemm.cpp, which has checked the extents: BLAS and oneDNN on CPUs
// (gemm_library_host.cpp), cublasLt on GPUs (gemm_library_cuda.cpp).
#pragma once

#include <string>

#include "kernels/gemm.hpp"

namespace dekoder::library {

/// As gemm(); every extent is at least 1 and fits an int.
void multiply(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
              const ConstStoredTensor2& b, Real beta, const StoredTensor2& c, const ConstStoredTensor1& bias);
/// As gemm_batched().
void multiply_batched(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStridedTensor3& a,
                      const ConstStridedTensor3& b, Real beta, const StridedTensor3& c);

/// product_library(), product_library_effect() and product_workspace_bytes().
std::string name();
std::string effect();
std::size_t workspace_bytes();

}  // namespace dekoder::library
