// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dekoder {

/// The time that a job has left, as Slurm's `squeue -o %L` prints it: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or
/// D-HH:MM:SS. `seconds` stays without a value for UNLIMITED, NOT_SET and INVALID. Returns "", or what was
/// expected.
std::string read_time_left(std::string_view text, std::optional<double>& seconds);

}  // namespace dekoder
