// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "commands/run_comparison.hpp"

namespace dekoder {

/// The report of `dekoder compare`: pairing, losses, attention maps and their statistics, run by run. Runs are
/// called A, B, C, ... in the order given.
std::string comparison_text(const RunComparison& comparison);

/// The same as one JSON object; losses and statistics with all their digits, what there is not as null.
std::string comparison_json(const RunComparison& comparison);

}  // namespace dekoder
