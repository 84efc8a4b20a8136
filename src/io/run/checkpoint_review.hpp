// SPDX-License-Identifier: Apache-2.0
// What a checkpoint is worth, and in what two of them differ. Nothing is written; tensors are read one at a time,
// in blocks (TensorReader), so that memory does not grow with the model.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "io/run/checkpoint_file.hpp"

namespace dekoder {

/// What became of reading a checkpoint.
enum class CheckpointVerdict {
  valid,
  not_finite,    ///< intact, but a value is NaN or infinite
  other_layout,  ///< intact, but not the state that its own configuration asks for
  newer_format,  ///< NewerFormatError
  damaged,       ///< or no checkpoint at all
  unreadable,    ///< ReadError: what it holds may be as good as ever
  gone           ///< deleted meanwhile
};
/// "VALID", "not finite", "other layout", "newer format", "damaged", "unreadable", "gone".
const char* verdict_name(CheckpointVerdict verdict);

struct CheckpointReview {
  CheckpointVerdict verdict = CheckpointVerdict::valid;
  std::string reason;   ///< message of the first fault, and how many tensors more have one; "" where valid
  CheckpointInfo info;  ///< where it could be read: valid, not_finite, other_layout; else step is -1
  std::size_t tensors = 0;
};

/// Layout of the state that a configuration, given as YAML, asks for. `name` stands for it in messages. Throws
/// ConfigError.
using LayoutOfConfig = std::function<ParameterLayout(const std::string& yaml, const std::string& name)>;

/// Reads every value of a checkpoint and checks all digests, the step in its name, where it has the name of one,
/// names and shapes of the tensors against its own configuration, and whether all values are finite.
CheckpointReview review_checkpoint(const std::filesystem::path& file, const LayoutOfConfig& layout_of);

/// In what two tensors of one shape differ. Differences are taken in double precision, subnormal numbers as they
/// are.
struct TensorDifference {
  std::size_t elements = 0;                ///< that differ in a bit; of float32 against float64: in their value
  double max_absolute = 0;                 ///< max |a - b|; NaN where just one is NaN, or both with other bits
  double max_relative = 0;                 ///< max |a - b| / max(|a|, |b|); NaN and infinity as max_absolute
  std::vector<std::size_t> first;          ///< index of the first such element, in the tensor's own shape
  double first_left = 0, first_right = 0;  ///< its values
};

/// Throws DataError where one of them is damaged.
TensorDifference compare_tensors(const OpenCheckpoint& left, const TensorRecord& left_record,
                                 const OpenCheckpoint& right, const TensorRecord& right_record);

}  // namespace dekoder
