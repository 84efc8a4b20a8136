// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/gemm.hpp"

namespace dekoder {

/// gemm() by oneDNN's matmul where it is built in, the precision is fp32 on a CPU and the shape is one it is faster
/// at; false (and nothing done) otherwise. The choice is a function of the shape alone.
bool gemm_onednn(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstTensor2& a, const ConstTensor2& b,
                 Real beta, const Tensor2& c, const ConstTensor1& bias);

}  // namespace dekoder
