// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

#include "config/run_config.hpp"
#include "data/data_mixture.hpp"

namespace dekoder {

struct JobPlan {
  std::string text;     ///< what is to be printed
  std::string refusal;  ///< what does not fit, and what to do; empty where all does
};

/// What a training of `config` (vocabulary set) on so many ranks takes: memory of rank 0 by term, micro-batches of
/// each rank and the share of time that some wait for others, bytes of messages, and of checkpoints and attention
/// maps (with `data`, which may be null) in the run directory, of which what is there counts as free. `memory`: GiB
/// that a rank may take; 0: not known. Changes nothing on the disk. Throws ConfigError where there are more ranks
/// than micro-batches, and as plan_attention.
JobPlan plan_job(const RunConfig& config, const std::filesystem::path& run, int ranks, double memory,
                 const DataMixture* data);

}  // namespace dekoder
