// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "base/error.hpp"
#include "config/command.hpp"

namespace dekoder {

/// `dekoder generate`: prints the text of --prompt as it comes, or results as JSON lines, which go to --output
/// where it is named, whole. Returns wants_to_go_on where a signal ended it before all results were there. Throws
/// ConfigError and DataError for prompts that cannot be gone on from, and as load_inference_model.
ExitCode generate_texts(const Command& command, const std::function<void(const std::string&)>& print);

}  // namespace dekoder
