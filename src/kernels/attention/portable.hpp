// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/attention/attention.hpp"

namespace dekoder::portable {

/// The same functions as in attention.hpp, one row per team on any execution space: what GPUs run, and what the
/// tests hold the CPU's tiles against.
void causal_attention(const ExecSpace& exec, ConstTensor5 qkv, Real scale, const Dropout& dropout, Tensor4 out,
                      Tensor3 lse);
void causal_attention_backward(const ExecSpace& exec, ConstTensor5 qkv, ConstTensor4 out, ConstTensor4 grad_out,
                               ConstTensor3 lse, Real scale, const Dropout& dropout, Tensor3 delta,
                               Tensor5 grad_qkv);

}  // namespace dekoder::portable
