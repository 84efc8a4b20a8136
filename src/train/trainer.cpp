// SPDX-License-Identifier: Apache-2.0
#include "train/trainer.hpp"

#include <unistd.h>

#include <cmath>

#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "config/run_config_yaml.hpp"
#include "io/checkpoint_folder.hpp"

namespace dekoder {

Trainer::Trainer(const RunConfig& config, const TokenDataset& data, const RunDirectory& directory,
                 const Communicator& ranks)
    : config_(config),
      data_(data),
      directory_(directory),
      ranks_(ranks),
      model_(config),
      evaluator_(data, config.evaluation, model_.decoder(), model_.activations()),
      generator_(model_.decoder()),
      state_(resume_or_initialise()),
      metrics_(directory.paths().metrics(), state_.metrics_bytes),
      samples_(directory.paths().samples(), state_.samples_bytes),
      progress_(state_.step, config.training.steps, double(config.training.batch) * config.model.context,
                isatty(STDERR_FILENO) == 1) {
  open_attention();
}

void Trainer::open_attention() {
  const long captures = attention_captures(config_);
  if (captures == 0) return;
  AttentionFileInfo info =
      attention_file_info(config_, state_, data_.tokenizer(), attention_probes(config_, data_));
  const double megabytes = double(attention_bytes(info, captures)) / 1e6;
  if (megabytes > config_.attention.max_megabytes)
    throw ConfigError(
        "attention maps of {} steps, {} probes, {} layers and {} heads could take {:.0f} MB, more than "
        "attention.max_megabytes {}; raise it, or lengthen attention.every, choose attention.layers or "
        "attention.heads, or "
        "shorten the probes (attention.texts, attention.windows, attention.window_tokens)",
        captures, info.probes.size(), info.layers.size(), info.heads.size(), megabytes,
        config_.attention.max_megabytes);
  log_info("attention maps: {} probes at {} steps, {} layers, {} heads: at most {:.1f} MB in {}",
           info.probes.size(), captures, info.layers.size(), info.heads.size(), megabytes,
           directory_.paths().attention().filename().string());
  attention_.emplace(AttentionRecord{AttentionCapture(model_.decoder(), model_.activations(), info),
                                     AttentionFile(directory_.paths().attention(), info, resumed_step_)});
}

ExitCode Trainer::train() {
  try {
    return run_loop();
  } catch (const DivergedError& error) {
    write_status(RunState::failed, error.what());
    throw;
  }
}

ExitCode Trainer::run_loop() {
  if (state_.step < config_.training.steps) {
    write_status(RunState::resumable);
    if (resumed_step_ > 0) metrics_.write(RestartMetrics{resumed_step_});
  }
  BatchLoader loader(data_, config_.training.seed, config_.model.context, config_.training.batch,
                     config_.micro_batch(), ranks_.rank(), ranks_.size(), state_.step);
  while (true) {
    if (due(config_.evaluation.every) && std::isnan(state_.validation_loss)) evaluate();
    if (state_.step > 0 && due(config_.sampling.every) && state_.sampled_step < state_.step) sample();
    if (attention_ && captures_attention(config_, state_.step) && !attention_->file.has(state_.step))
      capture_attention();
    const bool finished = state_.step >= config_.training.steps, stop = stop_agreed();
    if ((state_.step > 0 && due(config_.checkpoint.every)) || finished || stop) save(finished || stop);
    if (finished) return write_status(RunState::finished), ExitCode::finished;
    if (stop) return write_status(RunState::resumable), ExitCode::wants_to_go_on;
    train_step(loader);
  }
}

void Trainer::train_step(BatchLoader& loader) {
  const double tokens = double(config_.training.batch) * config_.model.context;
  double loss = 0;
  for (int micro = 0; micro < loader.micro_batches(); ++micro) {
    const Batch& batch = loader.next();
    const DropoutKey dropout{Real(config_.model.dropout), config_.training.seed, std::uint64_t(batch.step),
                             batch.first_sample};
    model_.load(exec_, batch.inputs, batch.targets);
    loss += model_.accumulate_gradients(exec_, dropout, Real(1 / tokens)) / tokens;
  }
  if (!std::isfinite(loss))
    throw DivergedError(
        "step {}: the loss is {}. The parameters were not updated; the last checkpoint is of step {}. "
        "Lower training.learning_rate or lengthen training.warmup_steps",
        state_.step + 1, loss, saved_step_);
  StepMetrics row;
  row.learning_rate = learning_rate(config_.training, state_.step);
  row.gradient_norm = model_.optimizer().step(exec_, config_.training, state_.step, model_.store());

  ++state_.step;
  state_.tokens_seen += std::uint64_t(tokens);
  state_.validation_loss = CheckpointInfo::none;
  progress_.step_done(state_.step, loss);
  row.step = state_.step;
  row.loss = loss;
  row.tokens = state_.tokens_seen;
  row.tokens_per_second = progress_.tokens_per_second();
  metrics_.write(row);
}

void Trainer::evaluate() {
  if (!evaluator_.has_tokens()) return;
  progress_.pause();
  const auto validation = evaluator_.evaluate(exec_, [&] { return stop_agreed(); });
  progress_.resume();
  if (!validation) return;
  state_.validation_loss = validation->loss;
  if (!(state_.best_validation_loss <= validation->loss)) {  // also where there is none yet
    state_.best_validation_loss = validation->loss;
    state_.best_step = state_.step;
  }
  progress_.set_validation_loss(validation->loss);
  metrics_.write(EvaluationMetrics{state_.step, validation->loss, validation->bits_per_byte, validation->tokens,
                                   evaluator_.windows().digest()});
  log_info("step {}: validation loss {:.4f} nats per token, {:.4f} bits per byte ({} tokens, {})", state_.step,
           validation->loss, validation->bits_per_byte, validation->tokens,
           evaluator_.windows().digest().substr(0, 12));
}

void Trainer::sample() {
  progress_.pause();
  const std::vector<Token> prompt = data_.tokenizer().encode(config_.sampling.prompt);
  std::vector<Token> tokens = prompt;
  bool stopped = false;
  generator_.generate(exec_, prompt, config_.sampling, [&](Token token) {
    tokens.push_back(token);
    stopped = stop_agreed();
    return !stopped;
  });
  progress_.resume();
  if (stopped) return;
  state_.sampled_step = state_.step;
  samples_.append(fmt::format("=== step {}\n{}\n\n", state_.step, data_.tokenizer().decode(tokens)));
}

void Trainer::capture_attention() {
  progress_.pause();
  const std::vector<AttentionMaps> maps = attention_->capture.capture(exec_);
  try {
    attention_->file.append(state_.step, maps);
    for (std::size_t i = 0; i < maps.size(); ++i)
      metrics_.write(attention_metrics(state_.step, attention_->capture.info(), i, maps[i]));
  } catch (const SaveError& error) {
    log_warning("step {}: attention not recorded: {}; training goes on", state_.step, error.what());
  }
  progress_.resume();
}

void Trainer::save(bool must) {
  if (saved_step_ == state_.step) return;
  progress_.pause();
  try {
    state_.metrics_bytes = metrics_.durable_bytes();
    state_.samples_bytes = samples_.durable_bytes();
    write_checkpoint(directory_.paths().checkpoints(), state_, model_.store(), model_.optimizer().first_moment(),
                     model_.optimizer().second_moment());
    saved_step_ = state_.step;
    write_status(RunState::resumable);
    rotate_checkpoints(directory_.paths().checkpoints(), config_.checkpoint.keep, state_.best_step, resumed_step_);
  } catch (const SaveError& error) {
    if (must) throw;
    log_warning("step {}: not saved: {}; training goes on, the last checkpoint is of step {}", state_.step,
                error.what(), saved_step_);
  }
  progress_.resume();
}

CheckpointInfo Trainer::resume_or_initialise() {
  // The configurations are compared before any tensor is read, so that a changed key is named rather than a shape.
  const std::filesystem::path folder = directory_.paths().checkpoints();
  if (!list_checkpoints(folder).empty()) check_restart(newest_checkpoint_info(folder).info);
  const auto loaded = load_newest_checkpoint(folder, model_.store(), model_.optimizer().first_moment(),
                                             model_.optimizer().second_moment());
  const std::string yaml = to_yaml(config_), data_hash = data_.header().source_sha256;
  CheckpointInfo state;
  if (loaded) {
    state = loaded->info;
    saved_step_ = resumed_step_ = state.step;
    log_info("going on from step {} of {} ({})", state.step, config_.training.steps,
             loaded->file.filename().string());
  } else {
    model_.store().initialise(exec_, config_.training.seed);
    const std::string identity = yaml + data_hash + std::filesystem::absolute(directory_.paths().root).string();
    state.run_id = fmt::format("{:016x}", site_of(identity.c_str()));
  }
  state.config_yaml = yaml;
  state.tokenizer = data_.tokenizer().to_text();
  state.data_hash = data_hash;
  state.writer = fmt::format("dekoder, {} {}", ExecSpace::name(), real_name);
  directory_.write_config(yaml);
  return state;
}

void Trainer::check_restart(const CheckpointInfo& saved) const {
  if (saved.tokenizer != data_.tokenizer().to_text() || saved.data_hash != data_.header().source_sha256)
    throw ConfigError(
        "{}: the run was trained on another text than {} (sha256 {}..., expected {}...); give the run's own "
        "token file, or start over with --fresh or another --run",
        directory_.paths().root.string(), data_.path().string(), data_.header().source_sha256.substr(0, 12),
        saved.data_hash.substr(0, 12));
  std::string refused;
  for (const ConfigDifference& change :
       config_differences(parse_run_config(saved.config_yaml, "checkpoint", {}), config_)) {
    if (change.may_change)
      log_info("{} was {} and is now {}", change.key, change.before, change.now);
    else
      refused += fmt::format("\n  {}: {} in the checkpoint, {} now", change.key, change.before, change.now);
  }
  if (!refused.empty())
    throw ConfigError(
        "{}: a restart cannot change{}\nuse the run's own configuration ({}), or start over with --fresh or "
        "another --run",
        directory_.paths().root.string(), refused, directory_.paths().config().string());
}

void Trainer::write_status(RunState state, const std::string& message) const {
  directory_.write_status({state, std::max(saved_step_, 0L), config_.training.steps, message});
}

bool Trainer::stop_agreed() const {
  return ranks_.max(stop_requested()) != 0;
}

bool Trainer::due(long every) const {
  return state_.step >= config_.training.steps || (every > 0 && state_.step % every == 0);
}

}  // namespace dekoder
