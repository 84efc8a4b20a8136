// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "kernels/first_positions.hpp"
#include "tensor/shape_signature.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

enum class Turn { forward, backward };

/// Rotary position embedding (Su et al., RoFormer, 2021, section 3.2.2): in every head the channels i and i + R/2
/// of the first R are turned by the angle of position first.of(b) + t, in place, where row n is token t = n mod
/// tokens_per_sample of sequence b. heads(N,W) holds `count` heads of D channels in its first columns: queries
/// and keys together. cosines and sines (T,R/2) are those of rotary_table. Turn::backward turns by the negative
/// angle: the gradient. Throws ShapeError.
inline constexpr ShapeSignature turn_heads_shapes{"turn_heads", "cosines(T,I) sines(T,I) -> heads(N,W)"};
void turn_heads(const ExecSpace& exec, StoredTensor2 heads, int count, int head_size, ConstMasterTensor2 cosines,
                ConstMasterTensor2 sines, const FirstPositions& first, int tokens_per_sample, Turn turn);

/// cosines(T,R/2) and sines(T,R/2) of t * frequency(i), computed in double. Overwrites both.
inline constexpr ShapeSignature rotary_table_shapes{"rotary_table", " -> cosines(T,I) sines(T,I)"};
void rotary_table(const ExecSpace& exec, const std::function<double(int)>& frequency, MasterTensor2 cosines,
                  MasterTensor2 sines);

}  // namespace dekoder
