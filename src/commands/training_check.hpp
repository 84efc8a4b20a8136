// SPDX-License-Identifier: Apache-2.0
// The self test's checks of numbers, on a tiny model and a text made here.
#pragma once

#include "commands/finding.hpp"
#include "parallel/communicator.hpp"

namespace dekoder {

/// Whether the gradients of this rank's device are those of its losses, by finite differences: not for bf16, whose
/// roundings are larger.
Finding check_gradients();

/// Whether a training of ten steps on this rank alone has the losses that are recorded here, and the same bits
/// twice.
Finding check_losses();

/// On all ranks: whether they train together as rank 0 does alone, to the last bit.
Finding check_ranks(const Communicator& ranks);

}  // namespace dekoder
