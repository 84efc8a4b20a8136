// SPDX-License-Identifier: Apache-2.0
// Sums and averages of flat buffers, element by element.
#pragma once

#include "tensor/shape_signature.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// sum += x.
inline constexpr ShapeSignature add_shapes{"add", "x(N) -> sum(N)"};
void add(const ExecSpace& exec, ConstMasterTensor1 x, MasterTensor1 sum);

/// sum += x; x = 0, for the next gradients to be accumulated in.
inline constexpr ShapeSignature move_add_shapes{"move_add", "x(N) -> sum(N)"};
void move_add(const ExecSpace& exec, MasterTensor1 x, MasterTensor1 sum);

/// y = x; x = 0.
inline constexpr ShapeSignature move_shapes{"move", "x(N) -> y(N)"};
void move(const ExecSpace& exec, MasterTensor1 x, MasterTensor1 y);

/// average += share (x - average): an exponential moving average of decay 1 - share.
inline constexpr ShapeSignature move_towards_shapes{"move_towards", "x(N) -> average(N)"};
void move_towards(const ExecSpace& exec, Real share, ConstMasterTensor1 x, MasterTensor1 average);

/// x and y change places.
inline constexpr ShapeSignature exchange_shapes{"exchange", " -> x(N) y(N)"};
void exchange(const ExecSpace& exec, MasterTensor1 x, MasterTensor1 y);

/// x = 0.
inline constexpr ShapeSignature clear_shapes{"clear", "x(N) -> "};
void clear(const ExecSpace& exec, MasterTensor1 x);

}  // namespace dekoder
