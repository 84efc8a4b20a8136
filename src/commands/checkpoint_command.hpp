// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "base/error.hpp"
#include "config/command.hpp"

namespace dekoder {

/// `dekoder checkpoint list|verify|diff`: looks at checkpoints and changes nothing, also while a run writes them.
/// `print` takes the text as it comes. Throws DataError where a folder or file cannot be read or is none, and, once
/// all is printed, where verify has found a file that is not valid. diff returns ExitCode::different where the two
/// are not equal.
ExitCode run_checkpoint_command(const Command& command, const std::function<void(const std::string&)>& print);

}  // namespace dekoder
