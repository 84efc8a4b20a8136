// SPDX-License-Identifier: Apache-2.0
#include "train/trainer.hpp"

#include <unistd.h>

#include <cmath>

#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "config/run_config_yaml.hpp"
#include "io/run/checkpoint_folder.hpp"

namespace dekoder {

namespace {

/// 0 and the whole batch are the same micro-batch.
RunConfig with_resolved_micro_batch(RunConfig config) {
  config.training.micro_batch = config.micro_batch();
  return config;
}

}  // namespace

Trainer::Trainer(const RunConfig& config, const TokenDataset& data, const RunDirectory& directory,
                 const Communicator& ranks)
    : config_(config),
      data_(data),
      directory_(directory),
      ranks_(ranks),
      model_(config),
      evaluator_(data, config.evaluation, model_.decoder(), model_.activations()),
      generator_(model_.decoder(), data.vocabulary()),
      state_(resume_or_initialise()),
      attention_(open_attention()),
      metrics_(directory.paths().metrics(), state_.metrics_bytes),
      samples_(directory.paths().samples(), state_.samples_bytes),
      progress_(state_.step, config.training.steps, double(config.training.batch) * config.model.context,
                isatty(STDERR_FILENO) == 1) {
  directory_.write_config(state_.config_yaml);
}

std::optional<AttentionRecord> Trainer::open_attention() const {
  if (!captures_attention(config_, 0)) return std::nullopt;
  const std::filesystem::path file = directory_.paths().attention();
  const AttentionPlan plan = plan_attention(config_, state_, data_, file, resumed_step_);
  log_info("attention maps: {} probes at {} steps ({} still to come), {} layers, {} heads: at most {:.1f} MB in {}",
           plan.info.probes.size(), plan.steps.size(), plan.to_come, plan.info.layers.size(),
           plan.info.heads.size(), double(plan.bytes) / 1e6, file.filename().string());
  AttentionRecord record{AttentionCapture(model_.decoder(), model_.activations(), plan.info),
                         AttentionFile(file, plan.info, resumed_step_)};
  if (!plan.steps.contains(0))
    log_info(
        "step 0 is not in {}: these probes have no maps of the initial parameters, which a restart cannot draw",
        file.filename().string());
  return record;
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
        "step {}: the loss is {}. The parameters were not updated; {}. Lower training.learning_rate or lengthen "
        "training.warmup_steps",
        state_.step + 1, std::abs(loss), last_saved());
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
  if (!std::isfinite(validation->loss))
    throw DivergedError(
        "step {}: the validation loss is {}. The state was not saved; {}. Lower training.learning_rate or lengthen "
        "training.warmup_steps",
        state_.step, std::abs(validation->loss), last_saved());
  state_.validation_loss = validation->loss;
  progress_.set_validation_loss(validation->loss);
  metrics_.write(EvaluationMetrics{state_.step, validation->loss, validation->bits_per_byte, validation->tokens,
                                   evaluator_.windows().digest()});
  log_info("step {}: validation loss {:.4f} nats per token, {:.4f} bits per byte ({} tokens, {})", state_.step,
           validation->loss, validation->bits_per_byte, validation->tokens,
           evaluator_.windows().digest().substr(0, 12));
}

void Trainer::sample() {
  progress_.pause();
  const std::vector<Token> prompt = data_.tokenizer().encode(config_.sampling.prompt, "sampling.prompt");
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
  } catch (const SaveError& error) {
    log_warning("step {}: {}; training goes on", state_.step, error.what());
  }
  if (state_.step > resumed_step_)  // else the log has them
    for (std::size_t i = 0; i < maps.size(); ++i)
      metrics_.write(attention_metrics(state_.step, attention_->capture.info(), i, maps[i]));
  progress_.resume();
}

void Trainer::save(bool must) {
  if (saved_step_ == state_.step) return;
  progress_.pause();
  CheckpointInfo saved = state_;
  const bool evaluated = !std::isnan(state_.validation_loss);
  if (due(config_.checkpoint.every) && evaluated && !(state_.best_validation_loss <= state_.validation_loss)) {
    saved.best_validation_loss = state_.validation_loss;  // also where there was none yet
    saved.best_step = state_.step;
  }
  try {
    saved.metrics_bytes = metrics_.durable_bytes();
    saved.samples_bytes = samples_.durable_bytes();
    write_checkpoint(directory_.paths().checkpoints(), saved, model_.store().layout(), model_.state());
    state_ = saved;
    saved_step_ = state_.step;
    write_status(RunState::resumable);
    rotate_checkpoints(directory_.paths().checkpoints(), config_.checkpoint.keep, state_.best_step, resumed_step_);
  } catch (const SaveError& error) {
    if (must) throw;
    log_warning("step {}: not saved: {}; training goes on, {}", state_.step, error.what(), last_saved());
  }
  progress_.resume();
}

CheckpointInfo Trainer::resume_or_initialise() {
  training_windows(data_, config_.model.context);  // refuses a text that is too short
  const std::filesystem::path folder = directory_.paths().checkpoints();
  const auto loaded = restart_checkpoint(folder, [&](const std::filesystem::path& file) {
    check_restart(read_checkpoint_info(file));  // before the tensors, so that a changed key is named, not a shape
    return read_checkpoint(file, model_.store().layout(), model_.state());
  });
  const std::string yaml = to_yaml(config_), data_hash = data_.header().identity();
  CheckpointInfo state;
  if (loaded) {
    state = loaded->info;
    saved_step_ = resumed_step_ = state.step;
    log_info("going on from step {} of {} ({})", state.step, config_.training.steps,
             loaded->file.filename().string());
    if (!std::filesystem::exists(folder / checkpoint_file_name(state.best_step))) {  // deleted by hand
      state.best_validation_loss = CheckpointInfo::none;
      state.best_step = -1;
    }
  } else {
    if (const auto status = read_run_status(directory_.paths()); status && status->step > 0)
      throw DataError(
          "{}: the run had saved step {}, but its checkpoints are gone from {}; bring them back, or start over "
          "with --fresh or another --run",
          directory_.paths().root.string(), status->step, folder.string());
    model_.store().initialise(exec_, config_.training.seed);
    const std::string identity = yaml + data_hash + std::filesystem::absolute(directory_.paths().root).string();
    state.run_id = fmt::format("{:016x}", site_of(identity.c_str()));
  }
  state.config_yaml = yaml;
  state.tokenizer = data_.tokenizer().to_text();
  state.data_hash = data_hash;
  state.writer = fmt::format("dekoder, {} {}", ExecSpace::name(), real_name);
  return state;
}

void Trainer::check_restart(const CheckpointInfo& saved) const {
  if (saved.tokenizer != data_.tokenizer().to_text() || saved.data_hash != data_.header().identity())
    throw ConfigError(
        "{}: the run was trained on another text, or with another part held out, than {} (sha256/training tokens: "
        "got {}, expected {}); give the run's own token file, or start over with --fresh or another --run",
        directory_.paths().root.string(), data_.path().string(), data_.header().identity(), saved.data_hash);
  std::string refused;
  for (const ConfigDifference& change :
       config_differences(with_resolved_micro_batch(parse_run_config(saved.config_yaml, "checkpoint", {})),
                          with_resolved_micro_batch(config_))) {
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

std::string Trainer::last_saved() const {
  return saved_step_ < 0 ? "no checkpoint was saved yet"
                         : fmt::format("the last checkpoint is of step {}", saved_step_);
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
