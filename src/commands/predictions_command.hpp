// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "config/command.hpp"

namespace dekoder {

/// `dekoder predictions`: writes what a checkpoint says of each token of held-out windows to a file, and returns
/// what is to be printed.
std::string record_predictions(const Command& command);

}  // namespace dekoder
