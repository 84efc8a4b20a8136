// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "base/error.hpp"
#include "data/batch_loader.hpp"
#include "inference/attention_capture.hpp"
#include "inference/generator.hpp"
#include "io/run/triggers.hpp"
#include "parallel/communicator.hpp"
#include "train/background_save.hpp"
#include "train/evaluator.hpp"
#include "train/job_time.hpp"
#include "train/restart.hpp"
#include "train/run_recorder.hpp"
#include "train/training_model.hpp"

namespace dekoder {

/// One run: the loop, and what it does by period. What comes of it goes to the RunRecorder, on rank 0; there alone
/// samples are made and attention maps captured, while the others wait where all agree on whether to stop.
class Trainer {
 public:
  /// config.model.vocabulary is set. Takes all memory of the run, then goes on from the newest valid checkpoint of
  /// the run directory, or draws the initial values where there is none or where `options` say to begin anew: the
  /// earlier files are then set aside. Throws as start_run; what is refused changes no file of the run.
  /// `directory` is null on ranks other than 0, which touch no file of the run.
  Trainer(const RunConfig& config, const DataMixture& data, const RunDirectory* directory,
          const Communicator& ranks, const StartOptions& options);

  /// Trains up to the last step (finished), or until this start's own last step, a signal or a file asks to stop,
  /// or the job's time is up: then it saves and returns wants_to_go_on. Throws DivergedError before an update with
  /// a loss or gradient that is not finite, where such steps are not skipped, and before a state whose validation
  /// loss is not finite is saved.
  ExitCode train();
  /// What made train() return wants_to_go_on: "signal 15", "the file stop", "the time limit", "--until 300". The
  /// same on all ranks.
  std::string stop_reason() const;

 private:
  ExitCode run_loop();
  void open_attention(const RunDirectory& directory);
  void train_step();
  /// The micro-batches from the present step on, as long as their number stays.
  void open_loader();
  /// Loss, gradients and the update, into `row`. Throws DivergedError before the update where they are not finite.
  void compute_step(StepMetrics& row);
  /// After a step that was not finite: goes on as if its gradients had been zero and the update left out, or throws
  /// DivergedError. All ranks have seen the same.
  void skip_or_stop(const std::string& what, StepMetrics& row);
  /// The loss on the validation tokens, logged; nothing where a stop cut it short, or there are no such tokens.
  std::optional<Validation> validate();
  /// False where a stop cut it short.
  bool evaluate();
  bool sample();
  /// What files ask for besides saving and stopping; changes nothing of the state.
  void serve_triggers();
  void capture_attention();
  void save(bool periodic, bool ends);
  /// Waits for the end of a save under way, on all ranks.
  void finish_save(bool ends);
  /// Rank 0: tells the recorder of a save that has ended.
  void note_save(bool ends);
  void record_status(RunState state, const std::string& message = "");
  /// On all ranks: a save under way counts too.
  std::string last_saved();
  /// Whether to stop: every rank asks at the same place of the loop, and they agree on what it was. `whole`:
  /// nothing was cut short at this step; else one of them has got a signal.
  bool stop_agreed(bool whole);
  /// Rank 0: what it adds to the agreement.
  int ask_files_and_clock();
  /// Whether something with this period is due at the current step, which counts updates done.
  bool due(long every) const { return due(every, state_.step); }
  bool due(long every, long step) const;

  RunConfig config_;
  const DataMixture& data_;
  const Communicator& ranks_;
  ExecSpace exec_;
  TrainingModel model_;
  Evaluator evaluator_;
  Generator generator_;
  RunStart start_;
  CheckpointInfo state_;                       ///< of the parameters as they are now
  const long until_;                           ///< step at which this start ends; -1: none
  std::optional<AttentionCapture> attention_;  ///< where the configuration names probes
  std::optional<RunRecorder> recorder_;        ///< on rank 0
  BackgroundSave saves_;                       ///< of what the recorder begins
  std::optional<TriggerFiles> triggers_;       ///< on rank 0
  JobTime job_time_;                           ///< on rank 0
  /// Agreed between the last two steps: a signal's number, triggers, the job's end.
  int signal_ = 0, asked_ = 0;
  std::optional<BatchLoader> loader_;
  PhaseClock clock_;
  std::vector<double> losses_;  ///< of the micro-batches of a step, over all ranks
};

}  // namespace dekoder
