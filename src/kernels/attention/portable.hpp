// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/attention/attention.hpp"

namespace dekoder::portable {

/// The same functions as in attention.hpp, one row per team on any execution space: what GPUs run, and what the
/// tests hold the CPU's tiles against.
void causal_attention(const ExecSpace& exec, const ConstHeads& qkv, Real scale, const Dropout& dropout,
                      StoredTensor4 out, MasterTensor3 lse);
void causal_attention_backward(const ExecSpace& exec, const ConstHeads& qkv, ConstStoredTensor4 out,
                               ConstStoredTensor4 grad_out, ConstMasterTensor3 lse, Real scale,
                               const Dropout& dropout, MasterTensor3 delta, const Heads& grad_qkv);

}  // namespace dekoder::portable
