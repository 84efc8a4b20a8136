// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/run/attention_folder.hpp"
#include "io/run/black_box.hpp"
#include "io/run/metrics_log.hpp"
#include "io/run/restarts_log.hpp"
#include "io/run/run_directory.hpp"
#include "train/background_save.hpp"
#include "train/progress.hpp"
#include "train/restart.hpp"

namespace dekoder {

/// Everything that a run leaves behind and shows: metrics, samples, attention maps, checkpoints, its starts,
/// status, configuration and the line of progress. A start that records nothing changes no file.
class RunRecorder {
 public:
  /// Sets the files of an earlier run aside where `options` say so. `attention` is null for a run without maps,
  /// `ranks` the number of them. Keeps a reference to `directory`. Throws ConfigError where the logs cannot be
  /// opened or the configuration cannot be written.
  RunRecorder(const RunConfig& config, const RunDirectory& directory, const RunStart& start,
              const AttentionFileInfo* attention, const StartOptions& options, int ranks);

  /// After an optimizer step that took `seconds`.
  void step(const StepMetrics& metrics, double seconds);
  void evaluation(const EvaluationMetrics& metrics);
  void sample(long step, const std::string& prompt, const std::string& text);
  /// Maps of every probe; one that the disk does not take is a warning.
  void attention(long step, const std::vector<AttentionMaps>& maps);
  bool has_attention(long step) const { return attention_->has(step); }

  /// Adds the last lines of metrics.jsonl and saves it in black_box/. Returns what to tell of it; a disk that does
  /// not take it is a warning.
  std::string black_box(BlackBox box, const ParameterStore& store);

  /// See RunDirectory::stop_if_lost.
  void stop_if_lost() const { directory_.stop_if_lost(); }

  /// Begins to save `state`: what is to be written, in any thread, and then the checkpoints that are not to be kept
  /// removed. Empty where that is what was saved last, or the disk does not take the logs: a warning, or where the
  /// run `ends` with it a SaveError. `periodic`: the state is one of the period, which alone can be the best one,
  /// and which the next one does not supersede.
  BackgroundSave::Write begin_save(const CheckpointInfo& state, const ParameterLayout& layout, bool periodic,
                                   bool ends);
  /// How that ended; the best state so far is written into `state`. What the disk did not take is a warning, or
  /// where the run `ends` with it a SaveError.
  void end_save(const SaveOutcome& outcome, CheckpointInfo& state, bool ends);
  /// Training has waited so long for the last save.
  void waited_for_save(double seconds) { restarts_->waited_for_save(seconds); }
  void status(RunState state, const std::string& message = "");
  /// This start ends, where it recorded something, at this step: see RestartsLog::end.
  void end(long step, const std::string& reason);
  /// "the last checkpoint is of step 500".
  std::string last_saved() const;

 private:
  /// Before anything is recorded: makes sure that the run is still this process's. The first thing recorded makes
  /// this start's configuration, and what it changed, a part of the run, and cuts the logs to the state that the
  /// run goes on from.
  void begin();
  void not_saved(const SaveError& error, long step, bool ends);

  const RunConfig config_;
  const RunDirectory& directory_;
  const RunStart start_;
  const std::string origin_;
  long saved_step_;
  bool begun_ = false;     ///< something was recorded by this start
  bool unsaved_;           ///< something was recorded since the last checkpoint, or since the one being written
  CheckpointInfo saving_;  ///< what is being written
  bool saving_periodic_ = false;
  long superseded_step_;  ///< of a checkpoint that is not of the period: the next one takes its place; -1: none
  std::optional<MetricsLog> metrics_;
  std::optional<AppendLog> samples_;
  std::optional<RestartsLog> restarts_;
  long attention_logged_;  ///< the last step of an earlier start whose maps have their rows in metrics.jsonl
  AttentionFileInfo attention_info_;
  std::optional<AttentionFolder> attention_;
  Progress progress_;
};

}  // namespace dekoder
