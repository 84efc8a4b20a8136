// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/error.hpp"
#include "config/command.hpp"

namespace dekoder {

/// `dekoder attention`: maps of one text under the parameters of a checkpoint, written to a file of their own, and
/// the statistics of every head printed.
ExitCode run_attention(const Command& command);

}  // namespace dekoder
