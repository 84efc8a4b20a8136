// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "io/run/checkpoint_review.hpp"

namespace dekoder {

struct CheckpointDifference {
  bool equal = false;  ///< every tensor bit for bit, and every field of the state
  std::string text;    ///< a line for each tensor and each field that differs, and sums
};

/// Two checkpoints compared. What only tells a run from another one with the same numbers (its name, lengths of its
/// logs, earlier restarts, the program that wrote the file) is told and is no difference. Throws DataError where a
/// tensor is damaged.
CheckpointDifference compare_checkpoints(const OpenCheckpoint& left, const OpenCheckpoint& right);

}  // namespace dekoder
