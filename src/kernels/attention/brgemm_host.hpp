// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/attention/tile_host.hpp"

namespace dekoder::host {

/// The causal_attention of bf16 on processors that have products of it (kernels/brgemm_host.hpp), head sizes even,
/// of extents that it has checked; false, and nothing done, elsewhere.
bool brgemm_attention(const ExecSpace& exec, const ForwardCall& call);

/// The same of causal_attention_backward.
bool brgemm_attention_backward(const ExecSpace& exec, const BackwardCall& call);

/// Bytes of scratch that each thread needs for the two; 0 where they do nothing.
std::size_t brgemm_attention_scratch_bytes(int context, int head_size);

}  // namespace dekoder::host
