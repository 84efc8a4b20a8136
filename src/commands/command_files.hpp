// SPDX-License-Identifier: Apache-2.0
// The files that several commands take or make: token file, checkpoint, output.
#pragma once

#include <filesystem>
#include <functional>

#include "config/command.hpp"
#include "data/data_mixture.hpp"
#include "inference/inference_model.hpp"

namespace dekoder {

/// The token files of a configuration. Throws ConfigError where it names none, and as DataMixture.
DataMixture open_tokens(const RunConfig& config);

/// The token files that a checkpoint is measured on: the run's own, which must be of the same texts, or
/// --tokens-file, with the same tokenizer. Throws ConfigError and DataError for others, and DataError where nothing
/// is held out.
DataMixture open_held_out_tokens(const InferenceModel& model, const Command& command);

/// The checkpoint of --step; the run directory or the checkpoint file as given where there is no --step. Throws
/// ConfigError where both say which, DataError where there is none of that step.
std::filesystem::path chosen_checkpoint(const Command& command);

/// Refuses an output whose folder cannot be written, and one whose place holds a file that `require_own` does not
/// take for an earlier output of this command: it throws DataError. Throws DataError, also as output_target.
void check_output(const std::filesystem::path& output,
                  const std::function<void(const std::filesystem::path&)>& require_own);

}  // namespace dekoder
