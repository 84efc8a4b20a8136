// SPDX-License-Identifier: Apache-2.0
#include "train/trainer.hpp"

#include <chrono>
#include <cmath>
#include <numeric>

#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "io/files/fault_point.hpp"
#include "tensor/region.hpp"

namespace dekoder {

namespace {

/// Steps.
constexpr long parameters_compared_every = 500;

}  // namespace

Trainer::Trainer(const RunConfig& config, const TokenDataset& data, const RunDirectory* directory,
                 const Communicator& ranks, const StartOptions& options)
    : config_(config),
      data_(data),
      ranks_(ranks),
      model_(config, ranks),
      evaluator_(data, config.evaluation, model_.decoder(), model_.activations()),
      generator_(model_.decoder(), data.vocabulary()),
      start_(start_run(config, data, evaluator_.windows().digest(), directory ? directory->paths() : RunPaths{},
                       options.fresh, model_)),
      state_(start_.state),
      saves_(model_) {
  ranks.on_root([&] {
    if (!evaluator_.has_tokens())
      log_info(
          "{}: has no held-out part, so there are no validation losses; prepare it with --validation-fraction "
          "above 0",
          data.path().string());
    open_attention(*directory);
    recorder_.emplace(config, *directory, start_, attention_ ? &attention_->info() : nullptr, options);
  });
}

void Trainer::open_attention(const RunDirectory& directory) {
  if (!captures_attention(config_, 0)) return;
  const std::filesystem::path folder = directory.paths().attention();
  const AttentionPlan plan = plan_attention(config_, state_, data_, folder, start_.resumed_step);
  log_info(
      "attention maps: {} probes at {} steps ({} still to come), {} layers, {} heads: at most {:.1f} MB in {}/",
      plan.info.probes.size(), plan.steps.size(), plan.to_come, plan.info.layers.size(), plan.info.heads.size(),
      double(plan.bytes) / 1e6, folder.filename().string());
  if (!plan.steps.contains(0) && !std::filesystem::exists(directory.paths().single_attention_file()))
    log_info(
        "step 0 is not in {}/: these probes have no maps of the initial parameters, which a restart cannot draw",
        folder.filename().string());
  attention_.emplace(model_.decoder(), model_.activations(), plan.info);
}

ExitCode Trainer::train() {
  try {
    return run_loop();
  } catch (const DivergedError& error) {
    finish_save(false);
    if (!recorder_) throw ElsewhereError(error.code());  // it is the same on all ranks: rank 0 says it
    record_status(RunState::failed, error.what());
    throw;
  }
}

ExitCode Trainer::run_loop() {
  if (state_.step < config_.training.steps) record_status(RunState::resumable);
  const LeafRange& leaves = model_.reducer().leaves();
  BatchLoader loader(data_, config_.training.seed, config_.model.context, config_.training.batch,
                     config_.micro_batch(), leaves.begin, leaves.end, state_.step);
  clock_.start(exec_);
  while (true) {
    bool whole = true;  // nothing that is due at this step was cut short by a stop
    if (due(config_.evaluation.every) && std::isnan(state_.validation_loss)) whole = evaluate();
    if (whole && state_.step > 0 && due(config_.sampling.every) && state_.sampled_step < state_.step)
      whole = sample();
    if (whole && attention_ && captures_attention(config_, state_.step) && !recorder_->has_attention(state_.step))
      capture_attention();
    const bool finished = whole && state_.step >= config_.training.steps, stop = !finished && stop_agreed();
    const bool periodic = state_.step > 0 && due(config_.checkpoint.every);
    if (periodic || stop) {
      save(periodic, finished || stop);
      clock_.lap(exec_, "save");
    }
    if (finished) return record_status(RunState::finished), ExitCode::finished;
    if (stop) return record_status(RunState::resumable), ExitCode::wants_to_go_on;
    train_step(loader);
    note_save(false);
  }
}

void Trainer::train_step(BatchLoader& loader) {
  const Region region("step");
  fault_point("train:step");
  const auto begin = std::chrono::steady_clock::now();
  const double tokens = double(config_.training.batch) * config_.model.context;
  std::vector<double> losses(std::size_t(leaves_of_step(config_)), 0);  // of the micro-batches of all ranks
  for (long done = 0; done < model_.reducer().leaves().size(); ++done) {
    const Batch& batch = loader.next();
    const DropoutKey dropout{Real(config_.model.dropout), config_.training.seed, std::uint64_t(batch.step),
                             batch.first_sample};
    model_.load(exec_, batch.inputs, batch.targets);
    clock_.lap(exec_, "data");
    losses[std::size_t(batch.micro)] =
        model_.leaf_gradients(exec_, dropout, Real(1 / tokens), &clock_, [&] { saves_.advance(); }) / tokens;
  }
  ranks_.unite(losses);
  const double loss = std::accumulate(losses.begin(), losses.end(), 0.0);
  if (!std::isfinite(loss))
    throw DivergedError(
        "step {}: the loss is {}. The parameters were not updated; {}. Lower training.learning_rate or lengthen "
        "training.warmup_steps",
        state_.step + 1, std::abs(loss), last_saved());
  StepMetrics row;
  row.learning_rate = learning_rate(config_.training, state_.step);
  row.gradient_norm = model_.update(exec_, state_.step, &clock_);
  if (fault_point("train:updated")) model_.store().initialise(exec_, 1);

  ++state_.step;
  state_.tokens_seen += std::uint64_t(tokens);
  state_.validation_loss = CheckpointInfo::none;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  row.step = state_.step;
  row.loss = loss;
  row.tokens = state_.tokens_seen;
  row.tokens_per_second = tokens / seconds;
  row.seconds = clock_.take();
  if (state_.step % parameters_compared_every == 0) require_equal_parameters(model_);
  if (recorder_) recorder_->step(row, seconds);
}

bool Trainer::evaluate() {
  if (!evaluator_.has_tokens()) return true;
  const auto stop = [&] {
    fault_point("evaluation:batch");
    saves_.advance();
    return stop_requested() != 0;
  };
  const auto validation = evaluator_.evaluate(exec_, stop, ranks_);
  clock_.lap(exec_, "evaluation");
  if (!validation) return false;
  if (!std::isfinite(validation->loss))
    throw DivergedError(
        "step {}: the validation loss is {}. The state was not saved; {}. Lower training.learning_rate or lengthen "
        "training.warmup_steps",
        state_.step, std::abs(validation->loss), last_saved());
  state_.validation_loss = validation->loss;
  state_.validation_hash = evaluator_.windows().digest();
  if (recorder_)
    recorder_->evaluation(
        {state_.step, validation->loss, validation->bits_per_byte, validation->tokens, state_.validation_hash});
  return true;
}

bool Trainer::sample() {
  std::vector<Token> tokens = data_.tokenizer().encode(config_.sampling.prompt, "sampling.prompt");
  const std::vector<Token> prompt = tokens;
  bool stopped = false;
  if (recorder_)
    generator_.generate(exec_, prompt, config_.sampling, [&](Token token) {
      tokens.push_back(token);
      fault_point("sampling:token");
      stopped = stop_requested() != 0;
      return !stopped;
    });
  clock_.lap(exec_, "sampling");
  if (ranks_.max(stopped ? 1 : 0) != 0) return false;
  state_.sampled_step = state_.step;
  if (recorder_) recorder_->sample(state_.step, config_.sampling.prompt, data_.tokenizer().decode(tokens));
  return true;
}

void Trainer::capture_attention() {
  recorder_->attention(state_.step, attention_->capture(exec_));
  clock_.lap(exec_, "attention maps");
}

void Trainer::save(bool periodic, bool ends) {
  finish_save(false);  // one is under way at a time
  BackgroundSave::Write write;
  ranks_.on_root([&] { write = recorder_->begin_save(state_, model_.store().layout(), periodic, ends); });
  if (!ranks_.from_root(write != nullptr)) return;
  saves_.begin(exec_, std::move(write));
  if (ends) finish_save(true);
}

void Trainer::finish_save(bool ends) {
  saves_.finish();
  ranks_.on_root([&] { note_save(ends); });
}

void Trainer::note_save(bool ends) {
  if (const auto outcome = saves_.take_outcome()) recorder_->end_save(*outcome, state_, ends);
}

void Trainer::record_status(RunState state, const std::string& message) {
  if (recorder_) recorder_->status(state, message);
}

std::string Trainer::last_saved() {
  finish_save(false);
  return recorder_ ? recorder_->last_saved() : "";
}

bool Trainer::stop_agreed() const {
  // Where nothing else is due, all ranks come from a step, and the watchdog need not wait longer than in one.
  const bool else_due = due(config_.evaluation.every) || due(config_.sampling.every) ||
                        due(config_.checkpoint.every) || captures_attention(config_, state_.step);
  std::optional<Region> region;
  if (!else_due) region.emplace("agreement");
  return ranks_.max(stop_requested()) != 0;
}

bool Trainer::due(long every) const {
  return state_.step >= config_.training.steps || (every > 0 && state_.step % every == 0);
}

}  // namespace dekoder
