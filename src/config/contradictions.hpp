// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/config_reader.hpp"
#include "config/run_config.hpp"

namespace dekoder {

/// Defaults that follow other settings, where these are given and those are not: the final learning rate is a tenth
/// of a peak below it, and the warm-up a tenth of steps that leave none to decay after it.
void follow_with_defaults(RunConfig& config, const ConfigReader& reader);

/// Reports sizes that are right alone and impossible together.
void check_sizes(const RunConfig& config, ConfigReader& reader);

/// Reports settings of the optimisation that are right alone and senseless together; only those that the schedule
/// uses.
void check_optimisation(const RunConfig& config, ConfigReader& reader);

}  // namespace dekoder
