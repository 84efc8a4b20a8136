// SPDX-License-Identifier: Apache-2.0
#include "train/run_recorder.hpp"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/log.hpp"
#include "inference/attention_capture.hpp"
#include "io/files/input_file.hpp"
#include "io/run/checkpoint_folder.hpp"

namespace dekoder {

namespace {

/// The text as one word of a command line.
std::string shell_word(const std::string& text) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) != 0 || std::strchr("%+,-./:=@_", c) != nullptr;
  };
  if (std::all_of(text.begin(), text.end(), plain)) return text;
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? "'\\''" : std::string(1, c);
  return word + "'";
}

}  // namespace

RunRecorder::RunRecorder(const RunConfig& config, const RunDirectory& directory, const RunStart& start,
                         const AttentionFileInfo* attention, const StartOptions& options, int ranks)
    : config_(config),
      directory_(directory),
      start_(start),
      origin_(options.origin),
      saved_step_(start.resumed_step),
      unsaved_(start.resumed_step < 0),
      superseded_step_(start.superseded_step),
      attention_logged_(start.resumed_step),
      progress_(
          start.state.step, config.training.steps,
          [this](long steps) { return double(config_.samples_before(steps)) * config_.model.context; },
          isatty(STDERR_FILENO) == 1) {
  directory.stop_if_lost();
  if (options.fresh) directory.set_aside();
  directory.require_writable_config();
  const RunPaths& paths = directory.paths();
  const auto require_held = [&directory] { directory.require_held(); };
  metrics_.emplace(paths.metrics(), start.state.metrics_bytes, require_held);
  samples_.emplace(paths.samples(), start.state.samples_bytes, require_held);
  restarts_.emplace(paths, start.state.step, ranks, require_held);
  if (attention == nullptr) return;
  attention_info_ = *attention;
  // A stop may have come before the maps of the step that was saved for it.
  const std::string log = read_text_file(paths.metrics(), "log").value_or("").substr(0, start.state.metrics_bytes);
  if (log.find(fmt::format("{{\"step\":{},\"probe\"", attention_logged_)) == std::string::npos) --attention_logged_;
  attention_.emplace(paths.attention(), *attention, start.resumed_step);
}

void RunRecorder::begin() {
  directory_.stop_if_lost();
  if (std::exchange(begun_, true)) return;
  directory_.write_config(origin_ + start_.state.config_yaml);
  metrics_->cut();
  samples_->cut();
  restarts_->begin();
  for (const ConfigDifference& change : start_.changes)
    log_info("{} was {} and is now {}", change.key, change.before, change.now);
  if (!start_.jump.empty()) log_warning("{}", start_.jump);
  if (start_.resumed_step >= 0) metrics_->write(RestartMetrics{start_.resumed_step, start_.changes});
  status(RunState::resumable);
}

void RunRecorder::step(const StepMetrics& metrics, double seconds) {
  begin();
  unsaved_ = true;
  metrics_->write(metrics);
  restarts_->step_done(metrics.skipped ? 0 : seconds);
  progress_.step_done(metrics.step, metrics.loss, seconds);
}

void RunRecorder::evaluation(const EvaluationMetrics& metrics) {
  begin();
  unsaved_ = true;
  metrics_->write(metrics);
  progress_.set_validation_loss(metrics.validation_loss);
  log_info("step {}: validation loss {:.4f} nats per token, {:.4f} bits per byte ({} tokens, {})", metrics.step,
           metrics.validation_loss, metrics.bits_per_byte, metrics.tokens, metrics.validation_hash.substr(0, 12));
  for (const SourceMetrics& source : metrics.sources)
    log_info("step {}: {}: validation loss {:.4f} nats per token, {:.4f} bits per byte ({} tokens)", metrics.step,
             source.tokens, source.validation_loss, source.bits_per_byte, source.validation_tokens);
}

void RunRecorder::sample(long step, const std::string& prompt, const std::string& text) {
  begin();
  unsaved_ = true;
  const nlohmann::ordered_json row = {{"step", step}, {"prompt", prompt}, {"text", text}};
  // Bytes of a character that the sample cuts become U+FFFD: JSON is UTF-8.
  samples_->append(row.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

void RunRecorder::attention(long step, const std::vector<AttentionMaps>& maps) {
  const bool logged = step <= attention_logged_;  // by the start before: a restart adds the files alone
  if (!logged) begin();
  try {
    attention_->write(step, maps);
  } catch (const SaveError& error) {
    log_warning("step {}: {}; training goes on", step, error.what());
  }
  if (logged) return;
  unsaved_ = true;
  for (std::size_t i = 0; i < maps.size(); ++i)
    metrics_->write(attention_metrics(step, attention_info_, i, maps[i]));
}

std::string RunRecorder::black_box(BlackBox box, const ParameterStore& store) {
  constexpr std::size_t lines = 100;
  begin();
  try {
    box.metrics = read_last_lines(directory_.paths().metrics(), lines);
    const std::filesystem::path file = directory_.paths().black_box() / black_box_file_name(box.step);
    write_black_box(file, box, store);
    return fmt::format("; it is kept whole: dekoder replay {}", shell_word(file.string()));
  } catch (const DataError& error) {
    log_warning("{}", error.what());
    return "";
  }
}

BackgroundSave::Write RunRecorder::begin_save(const CheckpointInfo& state, const ParameterLayout& layout,
                                              bool periodic, bool ends) {
  if (!unsaved_) return {};
  begin();
  saving_ = state;
  saving_periodic_ = periodic;
  if (periodic && !std::isnan(state.validation_loss) &&
      !(state.best_validation_loss <= state.validation_loss)) {  // also where there was none yet
    saving_.best_validation_loss = state.validation_loss;
    saving_.best_validation_hash = state.validation_hash;
    saving_.best_step = state.step;
  }
  try {
    directory_.require_held();
    saving_.metrics_bytes = metrics_->durable_bytes();
    saving_.samples_bytes = samples_->durable_bytes();
  } catch (const SaveError& error) {
    not_saved(error, state.step, ends);
    return {};
  }
  unsaved_ = false;
  return [this, &layout, saving = saving_, superseded = superseded_step_](const std::vector<NamedBuffer>& buffers) {
    const std::filesystem::path folder = directory_.paths().checkpoints();
    write_checkpoint(folder, saving, layout, buffers, [&] { directory_.require_held(); });  // it took a while
    directory_.write_status({RunState::resumable, saving.step, config_.training.steps, ""});
    rotate_checkpoints(folder, config_.checkpoint.keep, saving.best_step, superseded);
  };
}

void RunRecorder::end_save(const SaveOutcome& outcome, CheckpointInfo& state, bool ends) {
  try {
    if (outcome.failure) std::rethrow_exception(outcome.failure);
  } catch (const SaveError& error) {
    unsaved_ = true;
    return not_saved(error, saving_.step, ends);
  }
  saved_step_ = saving_.step;
  superseded_step_ = saving_periodic_ ? -1 : saving_.step;
  state.best_validation_loss = saving_.best_validation_loss;
  state.best_validation_hash = saving_.best_validation_hash;
  state.best_step = saving_.best_step;
  log_info("step {}: checkpoint written in {:.2f} s; training waited {:.2f} s for the copy", saving_.step,
           outcome.write_seconds, outcome.copy_seconds);
}

void RunRecorder::not_saved(const SaveError& error, long step, bool ends) {
  if (ends) throw error;
  log_warning("step {}: not saved: {}; training goes on, {}", step, error.what(), last_saved());
}

void RunRecorder::status(RunState state, const std::string& message) {
  directory_.write_status({state, std::max(saved_step_, 0L), config_.training.steps, message});
}

void RunRecorder::end(long step, const std::string& reason) {
  if (!begun_) return;
  directory_.stop_if_lost();
  restarts_->end(step, std::max(saved_step_, 0L), reason);
  log_info("{}", restarts_->summary());
}

std::string RunRecorder::last_saved() const {
  return saved_step_ < 0 ? "no checkpoint was saved yet"
                         : fmt::format("the last checkpoint is of step {}", saved_step_);
}

}  // namespace dekoder
