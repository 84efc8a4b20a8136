// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "kernels/gemm.hpp"

namespace dekoder {

/// gemm() by oneDNN's matmul where it is built in, the precision is fp32 on a CPU and the shape is one it is faster
/// at; false (and nothing done) otherwise. The choice is a function of the shape alone.
bool gemm_onednn(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
                 const ConstStoredTensor2& b, Real beta, const StoredTensor2& c, const ConstStoredTensor1& bias);

/// "oneDNN 3.7.2"; empty where gemm_onednn() does nothing.
std::string onednn_version();

}  // namespace dekoder
