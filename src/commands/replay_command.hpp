// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/error.hpp"
#include "config/command.hpp"

namespace dekoder {

/// `dekoder replay FILE`: computes the step in a black box again, from what the file holds alone, and compares.
struct Replay {
  std::string text;
  ExitCode code;  ///< diverged: it is not finite here too; finished: it is
};
/// Throws DataError where the file is no black box.
Replay replay_step(const Command& command);

}  // namespace dekoder
