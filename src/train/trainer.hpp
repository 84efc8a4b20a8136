// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "base/error.hpp"
#include "data/batch_loader.hpp"
#include "inference/attention_capture.hpp"
#include "inference/generator.hpp"
#include "io/run/checkpoint.hpp"
#include "io/run/metrics_log.hpp"
#include "io/run/run_directory.hpp"
#include "parallel/communicator.hpp"
#include "train/evaluator.hpp"
#include "train/progress.hpp"
#include "train/training_model.hpp"

namespace dekoder {

/// The attention maps of a run: how they are captured, and where they go.
struct AttentionRecord {
  AttentionCapture capture;
  AttentionFile file;
};

/// One run: the loop, and what it does by period.
class Trainer {
 public:
  /// config.model.vocabulary is set. Takes all memory of the run, then goes on from the newest valid checkpoint of
  /// the run directory, or draws the initial values where there is none. A configuration that differs from the
  /// checkpoint's in something a restart cannot change throws ConfigError; what is refused changes no file of the
  /// run.
  Trainer(const RunConfig& config, const TokenDataset& data, const RunDirectory& directory,
          const Communicator& ranks);

  /// Trains up to the last step (finished), or until a stop signal: then it saves and returns wants_to_go_on.
  /// Throws DivergedError before an update with a loss or gradient that is not finite, and before a state whose
  /// validation loss is not finite is saved.
  ExitCode train();

 private:
  ExitCode run_loop();
  CheckpointInfo resume_or_initialise();
  std::optional<AttentionRecord> open_attention() const;
  void check_restart(const CheckpointInfo& saved) const;
  void train_step(BatchLoader& loader);
  void evaluate();
  void sample();
  void capture_attention();
  void save(bool must);
  /// "the last checkpoint is of step 500".
  std::string last_saved() const;
  void write_status(RunState state, const std::string& message = "") const;
  bool stop_agreed() const;
  /// Whether something with this period is due at the current step, which counts updates done.
  bool due(long every) const;

  RunConfig config_;
  const TokenDataset& data_;
  const RunDirectory& directory_;
  const Communicator& ranks_;
  ExecSpace exec_;
  TrainingModel model_;
  Evaluator evaluator_;
  Generator generator_;
  long saved_step_ = -1, resumed_step_ = -1;
  CheckpointInfo state_;                      ///< of the parameters as they are now
  std::optional<AttentionRecord> attention_;  ///< where the configuration names probes
  MetricsLog metrics_;
  AppendLog samples_;
  Progress progress_;
};

}  // namespace dekoder
