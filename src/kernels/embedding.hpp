// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/dropout.hpp"
#include "kernels/first_positions.hpp"
#include "tensor/residual_tensor.hpp"
#include "tensor/shape_signature.hpp"

namespace dekoder {

/// x[b,t] = dropout(table[token[b,t]] + positions[first.of(b) + t]); positions is empty for a model without
/// positional encoding. Tokens must lie in [0, V): the batch loader guarantees it. Overwrites x.
inline constexpr ShapeSignature embedding_shapes{"embedding", "tokens(B,T) table(V,C) positions?(S,C) -> x(N,C)"};
void embedding(const ExecSpace& exec, ConstTokenTensor2 tokens, ConstStoredTensor2 table,
               ConstMasterTensor2 positions, const FirstPositions& first, const Dropout& dropout,
               const ResidualTensor2& x);

/// grad_table[v] += sum over the positions of token v of grad_x, each row by one owner in ascending position: the
/// tokens are sorted, on CPUs by counting, on GPUs by merging; no atomics. row_begin(V+1), row_tokens(N) and
/// merged, of at least token_sort_elements(N), are scratch. (Dropout's factor has already been applied to grad_x.)
inline constexpr ShapeSignature embedding_backward_shapes{
    "embedding_backward", "tokens(B,T) grad_x(N,C) -> grad_table(V,C) row_begin(W) row_tokens(N) merged?(M)"};
void embedding_backward(const ExecSpace& exec, ConstTokenTensor2 tokens, const ResidualTensor2& grad_x,
                        MasterTensor2 grad_table, IntTensor1 row_begin, IntTensor1 row_tokens, IntTensor1 merged);

/// Elements of embedding_backward's `merged` for N tokens: N on GPUs, 0 on CPUs.
long token_sort_elements(long tokens);

/// grad_positions[t] += sum over b of grad_x[b*T+t], in ascending b. S >= T rows; rows from T on are untouched.
inline constexpr ShapeSignature position_backward_shapes{"position_backward", "grad_x(N,C) -> grad_positions(S,C)"};
void position_backward(const ExecSpace& exec, const ResidualTensor2& grad_x, int tokens_per_sample,
                       MasterTensor2 grad_positions);

/// Sinusoidal table (Vaswani et al. 2017, section 3.5): pos[t,2i] = sin(t / 10000^(2i/C)), pos[t,2i+1] = cos(same),
/// computed in double. Overwrites positions.
inline constexpr ShapeSignature sinusoidal_positions_shapes{"sinusoidal_positions", " -> positions(T,C)"};
void sinusoidal_positions(const ExecSpace& exec, MasterTensor2 positions);

}  // namespace dekoder
