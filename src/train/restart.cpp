// SPDX-License-Identifier: Apache-2.0
#include "train/restart.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/exit_report.hpp"
#include "base/log.hpp"
#include "data/batch_loader.hpp"
#include "io/run/checkpoint_folder.hpp"
#include "io/run/metrics_log.hpp"
#include "kernels/gemm.hpp"
#include "train/state_exchange.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

RunConfig config_of(const CheckpointInfo& saved) {
  return recorded_run_config(saved.config_yaml, "checkpoint");
}

/// Whether a checkpoint is one of `dekoder import`: no text has been seen, and no step done.
bool is_imported(const CheckpointInfo& saved) {
  return saved.step == 0 && saved.data_hash.empty();
}

/// The first start after an import says how the model is trained: all but the model and what the optimizer keeps,
/// which is there, may be other than in its config.yaml, and of the model what no parameter's shape or meaning
/// follows from.
bool may_change_after_import(const std::string& key, const RunConfig& config) {
  return (!key.starts_with("model.") && !is_of_optimizer_state(key)) || key == "model.dropout" ||
         (key == "model.context" && config.model.positions != Positions::learned);
}

/// The settings that differ from the checkpoint's. Throws ConfigError naming those that a restart cannot change.
std::vector<ConfigDifference> checked_changes(const CheckpointInfo& saved, const RunConfig& config,
                                              const RunPaths& paths) {
  std::vector<ConfigDifference> changes = config_differences(config_of(saved), config);
  std::string refused;
  for (const ConfigDifference& change : changes)
    if (is_imported(saved) ? !may_change_after_import(change.key, config) : !change.may_change)
      refused += fmt::format("\n  {}: {} in the checkpoint, {} now", change.key, change.before, change.now);
  if (!refused.empty())
    throw ConfigError(
        "{}: a restart cannot change{}\nuse the run's own configuration ({}), or start over with --fresh or "
        "another --run",
        paths.root.string(), refused, paths.config().string());
  if (config.training.steps < saved.step)
    throw ConfigError(
        "{}: training.steps is {}, but the run has done {} steps; give at least that many, or start over with "
        "--fresh or another --run",
        paths.root.string(), config.training.steps, saved.step);
  return is_imported(saved) ? std::vector<ConfigDifference>() : changes;
}

/// Losses are compared on the same validation tokens only: what a checkpoint says of other ones is forgotten, with
/// a log line. Files of minor version 0 do not name the tokens; they are the same where the setting is.
void forget_other_validation_sets(const std::string& validation_set, const RunPaths& paths, RunStart& start) {
  CheckpointInfo& state = start.state;
  const bool same_setting =
      std::none_of(start.changes.begin(), start.changes.end(),
                   [](const ConfigDifference& change) { return change.key == "evaluation.tokens"; });
  if (same_setting && state.validation_hash.empty() && !std::isnan(state.validation_loss))
    state.validation_hash = validation_set;
  if (same_setting && state.best_validation_hash.empty() && state.best_step >= 0)
    state.best_validation_hash = validation_set;
  if (state.validation_hash != validation_set) state.validation_loss = CheckpointInfo::none;
  const bool other_set = state.best_step >= 0 && state.best_validation_hash != validation_set;
  if (other_set)
    log_info(
        "the validation tokens are others than before: the best state so far (step {}, {:.4f} nats per token) "
        "cannot be compared with new ones, and a new best is looked for",
        state.best_step, state.best_validation_loss);
  const bool there = fs::exists(paths.checkpoints() / checkpoint_file_name(state.best_step));  // or deleted by hand
  if (there && !other_set) return;
  state.best_validation_loss = CheckpointInfo::none;
  state.best_step = -1;
}

CheckpointInfo new_state(const std::string& yaml, const DataMixture& data, const RunPaths& paths) {
  CheckpointInfo state;
  const std::string identity = yaml + data.identity() + fs::absolute(paths.root).string();
  state.run_id = fmt::format("{:016x}", site_of(identity.c_str()));
  return state;
}

}  // namespace

void require_own_text(const CheckpointInfo& state, const DataMixture& data, const std::string& run,
                      const std::string& remedy) {
  const bool same_tokenizer = state.tokenizer == data.tokenizer().to_text();
  if (same_tokenizer && (state.data_hash == data.identity() || is_imported(state))) return;
  if (is_imported(state))
    throw ConfigError(
        "{}: the tokenizer of {} is not that of the model; prepare the text with the tokenizer file that was "
        "imported",
        run, data.name());
  throw ConfigError("{}: the run was trained on another text, or with another part held out, than {} ({}); {}", run,
                    data.name(), same_tokenizer ? data.difference_from(state.data_hash) : "their tokenizers differ",
                    remedy);
}

namespace {

RunStart start_on_root(const RunConfig& config, const DataMixture& data, const std::string& validation_set,
                       const RunPaths& paths, bool fresh, TrainingModel& model) {
  training_order(data, config.training.seed, config.model.context);  // refuses a text that is too short
  const std::string yaml = to_yaml(config);
  RunStart start;
  std::optional<LoadedCheckpoint> loaded;
  if (!fresh)
    loaded = restart_checkpoint(paths.checkpoints(), [&](const fs::path& file) {
      // Before the tensors, so that a changed key is named, not a shape.
      const CheckpointInfo saved = read_checkpoint_info(file);
      require_own_text(saved, data, paths.root.string(),
                       "give the run's own token file, or start over with --fresh or another --run");
      start.changes = checked_changes(saved, config, paths);
      return read_checkpoint(file, model.store().layout(), StateExchange(model).to_owners());
    });
  if (loaded) {
    start.state = loaded->info;
    start.resumed_step = loaded->info.step;
    const RunConfig before = config_of(loaded->info);
    const long period = before.checkpoint.every, step = loaded->info.step;
    if (step != before.training.steps && (period == 0 || step % period != 0)) start.superseded_step = step;
    log_info("going on from step {} of {} ({})", step, config.training.steps, loaded->file.filename().string());
    if (const auto jump =
            is_imported(loaded->info) ? std::nullopt : learning_rate_jump(before.training, config.training, step))
      start.jump = fmt::format(
          "the learning rate jumps from {:.3g} to {:.3g}: the changed settings make another schedule, whose step "
          "{} this is; training.schedule=wsd can be continued with more steps, or lower training.learning_rate",
          jump->last, jump->next, step + 1);
    if (!start.changes.empty()) start.state.restarts += to_json_line(RestartMetrics{step, start.changes});
    forget_other_validation_sets(validation_set, paths, start);
  } else {
    if (const auto status = fresh ? std::nullopt : read_run_status(paths); status && status->step > 0)
      throw DataError(
          "{}: the run had saved step {}, but its checkpoints are gone from {}; bring them back, or start over "
          "with --fresh or another --run",
          paths.root.string(), status->step, paths.checkpoints().string());
    start.state = new_state(yaml, data, paths);
  }
  start.state.config_yaml = yaml;
  start.state.tokenizer = data.tokenizer().to_text();
  start.state.data_hash = data.identity();
  start.state.writer = program_name();
  return start;
}

}  // namespace

void require_equal_parameters(const TrainingModel& model) {
  const Communicator& ranks = model.ranks();
  if (ranks.size() == 1) return;
  const std::uint64_t own = model.parameter_digest();
  std::string others;
  for (const std::string& text : ranks.gather(own != ranks.from_root(own) ? std::to_string(ranks.rank()) : ""))
    if (!text.empty()) others += (others.empty() ? "" : ", ") + text;
  if (!ranks.from_root(!others.empty())) return;
  throw DivergedError(
      "the parameters of rank {} are not those of rank 0, though all computed the same: the memory or processor of "
      "a "
      "node fails, or the nodes are of several kinds or have several builds. Start again from the last checkpoint, "
      "without these nodes",
      others);
}

RunStart start_run(const RunConfig& config, const DataMixture& data, const std::string& validation_set,
                   const RunPaths& paths, bool fresh, TrainingModel& model) {
  const Communicator& ranks = model.ranks();
  StateExchange exchange(model);
  RunStart start;
  bool read = false;
  if (ranks.root()) {
    try {
      start = start_on_root(config, data, validation_set, paths, fresh, model);
    } catch (...) {
      exchange.tell(StartNews::failed, failure_of(std::current_exception()).code);
      throw;
    }
    read = start.resumed_step >= 0;
    exchange.tell(read ? StartNews::read : StartNews::drawn);
  } else {
    read = exchange.follow_reading();
  }
  if (!read) model.initialise(ExecSpace());
  require_equal_parameters(model);
  CheckpointInfo& state = start.state;
  state.step = ranks.from_root(state.step);
  state.tokens_seen = ranks.from_root(state.tokens_seen);
  state.validation_loss = ranks.from_root(state.validation_loss);
  state.sampled_step = ranks.from_root(state.sampled_step);
  state.skipped_steps = ranks.from_root(state.skipped_steps);
  return start;
}

}  // namespace dekoder
