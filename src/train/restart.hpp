// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config/run_config_yaml.hpp"
#include "data/data_mixture.hpp"
#include "io/run/checkpoint.hpp"
#include "io/run/run_directory.hpp"
#include "train/training_model.hpp"

namespace dekoder {

/// What `dekoder train` is told besides the configuration.
struct StartOptions {
  bool fresh = false;               ///< begin anew, and set aside what is there
  std::string origin;               ///< first line of config.yaml: origin_line, or empty
  std::optional<double> time_left;  ///< seconds that the job had left as this process was started
  long until = -1;                  ///< step at which this start ends, before the last one; -1: none
};

/// Where a start of `dekoder train` begins.
struct RunStart {
  CheckpointInfo state;       ///< of the parameters that the model holds now
  long resumed_step = -1;     ///< of the checkpoint that was read; -1: a new run
  long superseded_step = -1;  ///< of a checkpoint that only a stop asked for: the next one takes its place
  std::vector<ConfigDifference> changes;  ///< settings that are not those of the checkpoint
  std::string jump;  ///< what is to be said of the learning rate with them; empty where it goes on smoothly
};

/// Reads the newest valid checkpoint of the run directory into `model`, or draws the initial values where there is
/// none, or where `fresh` says to begin anew. `validation_set` is the digest of the evaluator's tokens: losses of
/// another set are forgotten, as they cannot be compared. Throws ConfigError for a configuration or a text that a
/// restart cannot go on with and DataError where the run's checkpoints are gone; what is refused changes no file.
/// On several ranks rank 0 alone meets the files; `paths` means nothing to the others, and what they get of
/// `state` is step, tokens_seen, validation_loss and sampled_step. Where it throws, they throw ElsewhereError.
RunStart start_run(const RunConfig& config, const DataMixture& data, const std::string& validation_set,
                   const RunPaths& paths, bool fresh, TrainingModel& model);

/// Throws DivergedError on all ranks where one has other parameters than rank 0, and warns of it there: memory or a
/// processor that fails, or nodes of several kinds.
void require_equal_parameters(const TrainingModel& model);

/// Throws ConfigError where `data` is not the text, cut in the same two parts, that the state was trained on; `run`
/// names the run in the message and `remedy` ends it.
void require_own_text(const CheckpointInfo& state, const DataMixture& data, const std::string& run,
                      const std::string& remedy);

}  // namespace dekoder
