// SPDX-License-Identifier: Apache-2.0
#include "train/trainer.hpp"

#include <chrono>
#include <cmath>
#include <numeric>

#include "base/elapsed.hpp"
#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "io/files/fault_point.hpp"
#include "io/run/lock_file.hpp"
#include "tensor/region.hpp"
#include "train/step_trace.hpp"

namespace dekoder {

namespace {

/// Steps.
constexpr long parameters_compared_every = 500;

// What the ranks agree on between two steps is the largest of their numbers: a signal's in the low bits, and above
// them what rank 0 alone knows of. It hides the signals of other ranks, which these say again after the next step.
constexpr int signal_bits = 7;
constexpr int signal_mask = (1 << signal_bits) - 1;
/// Beside the triggers.
constexpr int time_is_up = 16;

JobTime job_time(const RunConfig& config, const StartOptions& options, const Evaluator& evaluator,
                 const ParameterLayout& layout, bool root) {
  const double tokens = double(config.training.batch) * config.model.context;
  return {root ? job_end(options.time_left) : std::nullopt,
          {JobTime::guessed_save_seconds(checkpoint_bytes(layout)), double(evaluator.tokens()) / tokens}};
}

/// How often a run goes through each source of a mixture.
void log_mixture(const DataMixture& data, const RunConfig& config) {
  if (data.single()) return;
  const MixtureOrder order = training_order(data, config.training.seed, config.model.context);
  const double samples = double(config.samples_before(config.training.steps));
  for (std::size_t i = 0; i < data.sources().size(); ++i)
    log_info("{}: {:.2f} % of the samples, each of its {} windows {:.3g} times in {} steps",
             data.sources()[i].path().string(), 100 * order.share(i), order.sources()[i].windows(),
             order.share(i) * samples / double(order.sources()[i].windows()), config.training.steps);
}

}  // namespace

Trainer::Trainer(const RunConfig& config, const DataMixture& data, const RunDirectory* directory,
                 const Communicator& ranks, const StartOptions& options)
    : config_(config),
      data_(data),
      ranks_(ranks),
      model_(config, ranks),
      evaluator_(data, config.evaluation, model_.decoder(), model_.activations()),
      generator_(model_.decoder(), data.vocabulary()),
      start_(start_run(config, data, evaluator_.digest(), directory ? directory->paths() : RunPaths{},
                       options.fresh, model_)),
      state_(start_.state),
      until_(options.until),
      saves_(model_),
      job_time_(job_time(config, options, evaluator_, model_.store().layout(), ranks.root())) {
  ranks.on_root([&] {
    for (std::size_t i = 0; i < data.sources().size(); ++i)
      if (evaluator_.windows()[i].tokens() == 0)
        log_info(
            "{}: has no held-out part, so there are no validation losses of it; prepare it with "
            "a larger --validation-fraction",
            data.sources()[i].path().string());
    log_mixture(data, config);
    open_attention(*directory);
    triggers_.emplace(directory->paths().root);
    recorder_.emplace(config, *directory, start_, attention_ ? &attention_->info() : nullptr, options,
                      ranks.size());
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
    recorder_->end(state_.step, fmt::format("diverged: {}", error.what()));
    throw;
  } catch (const SaveError& error) {
    if (recorder_) recorder_->end(state_.step, error.what());
    throw;
  } catch (const std::exception& error) {
    // The file may take its time, or for ever.
    if (recorder_ && saves_.busy()) log_warning("{}; a checkpoint is being written, and comes first", error.what());
    throw;
  }
}

ExitCode Trainer::run_loop() {
  if (state_.step < config_.training.steps) record_status(RunState::resumable);
  clock_.start(exec_);
  while (true) {
    bool whole = true;  // nothing that is due at this step was cut short by a stop
    if (due(config_.evaluation.every) && std::isnan(state_.validation_loss)) whole = evaluate();
    if (whole && state_.step > 0 && due(config_.sampling.every) && state_.sampled_step < state_.step)
      whole = sample();
    if (whole && captures_attention(config_, state_.step)) capture_attention();
    const bool finished = whole && state_.step >= config_.training.steps;
    const bool up_to_here = whole && until_ >= 0 && state_.step >= until_;
    const bool stop = !finished && (stop_agreed(whole) || up_to_here);
    if (!finished) serve_triggers();
    const bool periodic = state_.step > 0 && due(config_.checkpoint.every);
    if (periodic || stop || (asked_ & checkpoint_now) != 0) {
      const auto begin = std::chrono::steady_clock::now();
      save(periodic, finished || stop);
      clock_.lap(exec_, "save");
      if (recorder_) recorder_->waited_for_save(seconds_since(begin));
    }
    if (recorder_ && (finished || stop)) recorder_->end(state_.step, finished ? "finished" : stop_reason());
    if (finished) return record_status(RunState::finished), ExitCode::finished;
    if (stop) {
      record_status(RunState::resumable, (asked_ & stop_file) != 0 ? "stopped by the file stop" : "");
      return ExitCode::wants_to_go_on;
    }
    train_step();
    note_save(false);
  }
}

void Trainer::open_loader() {
  const long step = state_.step;
  model_.prepare_step(step);
  const LeafRange& leaves = model_.reducer().leaves();
  loader_.emplace(data_, config_.training.seed, config_.model.context, config_.batch_of(step),
                  config_.micro_batch(), leaves.begin, leaves.end, step, config_.samples_before(step));
}

void Trainer::compute_step(StepMetrics& row) {
  const Region region("step");
  fault_point("train:step");
  const double tokens = double(config_.batch_of(state_.step)) * config_.model.context;
  losses_.assign(std::size_t(leaves_of_step(config_, state_.step)), 0);
  std::vector<double> z_losses(config_.model.z_loss > 0 ? losses_.size() : 0, 0);
  for (long done = 0; done < model_.reducer().leaves().size(); ++done) {
    const Batch& batch = loader_->next();
    const DropoutKey dropout{Real(config_.model.dropout), config_.training.seed, std::uint64_t(batch.step),
                             batch.first_sample};
    model_.load(exec_, batch.inputs, batch.targets);
    clock_.lap(exec_, "data");
    losses_[std::size_t(batch.micro)] =
        model_.leaf_gradients(exec_, dropout, Real(1 / tokens), &clock_, [&] { saves_.advance(); }) / tokens;
    if (!z_losses.empty()) z_losses[std::size_t(batch.micro)] = model_.z_loss(exec_) / tokens;
  }
  ranks_.unite(losses_);
  row.loss = std::accumulate(losses_.begin(), losses_.end(), 0.0);
  if (!z_losses.empty()) {
    ranks_.unite(z_losses);
    row.z_loss = std::accumulate(z_losses.begin(), z_losses.end(), 0.0);
  }
  row.learning_rate = learning_rate(config_.training, state_.step);
  row.gradient_norm = CheckpointInfo::none;
  if (!std::isfinite(row.loss)) throw DivergedError("{}", loss_is_not_finite(state_.step + 1, row.loss));
  row.gradient_norm = model_.update(exec_, state_.step, &clock_);
  if (fault_point("train:updated")) model_.store().initialise(exec_, 1);
}

void Trainer::skip_or_stop(const std::string& what, StepMetrics& row) {
  const bool skips = config_.training.on_nonfinite == OnNonfinite::skip;
  const bool stops = !skips || state_.skipped_steps >= config_.training.skip_at_most;
  std::string kept,
      remedy = fmt::format(
          "Lower training.learning_rate, lengthen training.warmup_steps or set a lower training.clip_norm (0: "
          "none){}",
          skips ? "" : ", or leave such steps out: training.on_nonfinite=skip");
  if (stops || state_.skipped_steps == 0)  // not each of those skipped: a file has the size of the parameters
    ranks_.on_root([&] {
      BlackBox box = black_box_of_step(config_, data_, state_, losses_, what, ranks_.size());
      box.tensors = trace_step(exec_, model_, box);
      kept = "; " + first_bad_tensor_text(box) + recorder_->black_box(box, model_.store());
      if (all_finite(box))
        remedy = "Run dekoder selftest on the nodes of this run, and go on on others: the same command does";
    });
  if (stops)
    throw DivergedError(
        "{}{}. The parameters were not updated; {}. {}{}", what, kept, last_saved(),
        skips ? fmt::format("{} steps were skipped before, training.skip_at_most of a run over all its restarts. ",
                            state_.skipped_steps)
              : "",
        remedy);
  Kokkos::deep_copy(exec_, model_.store().gradients(), Master(0));
  ++state_.skipped_steps;
  row.skipped = true;
  if (recorder_)
    log_warning("{}: left out, the parameters stay as they were ({} of at most {} such steps){}", what,
                state_.skipped_steps, config_.training.skip_at_most, kept);
}

void Trainer::train_step() {
  const auto begin = std::chrono::steady_clock::now();
  const int batch = config_.batch_of(state_.step);
  if (!loader_ || batch != config_.batch_of(state_.step - 1)) open_loader();
  const double tokens = double(batch) * config_.model.context;
  StepMetrics row;
  try {
    compute_step(row);
  } catch (const DivergedError& error) {
    skip_or_stop(error.what(), row);
  }
  ++state_.step;
  state_.tokens_seen += std::uint64_t(tokens);
  state_.validation_loss = CheckpointInfo::none;
  const double seconds = seconds_since(begin);
  job_time_.took(Work::step,
                 seconds * config_.batch_of(state_.step) / batch);  // as long as the next one's batch takes
  row.step = state_.step;
  row.tokens = state_.tokens_seen;
  row.tokens_per_second = tokens / seconds;
  row.seconds = clock_.take();
  if (state_.step % parameters_compared_every == 0) require_equal_parameters(model_);
  if (recorder_) recorder_->step(row, seconds);
}

std::optional<Validation> Trainer::validate() {
  if (evaluator_.tokens() == 0) return std::nullopt;
  const auto stop = [&] {
    fault_point("evaluation:batch");
    saves_.advance();
    return stop_requested() != 0;
  };
  const auto begin = std::chrono::steady_clock::now();
  std::optional<MixtureValidation> measured;
  model_.with_average(exec_, [&] { measured = evaluator_.evaluate(exec_, stop, ranks_); });
  job_time_.took(Work::evaluation, seconds_since(begin));
  clock_.lap(exec_, "evaluation");
  if (!measured) return std::nullopt;
  const Validation& validation = measured->all;
  if (!std::isfinite(validation.loss))
    throw DivergedError(
        "step {}: the validation loss is {}. The state was not saved; {}. Lower training.learning_rate or lengthen "
        "training.warmup_steps",
        state_.step, std::abs(validation.loss), last_saved());
  if (!recorder_) return validation;
  EvaluationMetrics row{state_.step,       validation.loss,     validation.bits_per_byte,
                        validation.tokens, evaluator_.digest(), {}};
  for (std::size_t i = 0; i < measured->sources.size() && !data_.single(); ++i)
    if (const Validation& source = measured->sources[i]; source.tokens > 0)
      row.sources.push_back({data_.sources()[i].path().string(), evaluator_.share(i), source.loss,
                             source.bits_per_byte, source.tokens});
  recorder_->evaluation(row);
  return validation;
}

bool Trainer::evaluate() {
  const auto validation = validate();
  if (!validation) return evaluator_.tokens() == 0;
  state_.validation_loss = validation->loss;
  state_.validation_hash = evaluator_.digest();
  return true;
}

bool Trainer::sample() {
  const std::vector<Token> prompt = data_.tokenizer().encode(config_.sampling.prompt, "sampling.prompt");
  std::vector<Token>
      tokens;  // behind the prompt, whose own need not decode to it: SentencePiece puts a space in front
  bool stopped = false;
  const auto begin = std::chrono::steady_clock::now();
  model_.with_average(exec_, [&] {
    if (recorder_)
      generator_.generate(exec_, prompt, config_.sampling, [&](Token token) {
        tokens.push_back(token);
        fault_point("sampling:token");
        stopped = stop_requested() != 0;
        return !stopped;
      });
  });
  job_time_.took(Work::sample, seconds_since(begin));
  clock_.lap(exec_, "sampling");
  if (ranks_.max(stopped ? 1 : 0) != 0) return false;
  state_.sampled_step = state_.step;
  const std::string& text = config_.sampling.prompt;
  if (recorder_) recorder_->sample(state_.step, text, text + data_.tokenizer().decode(tokens));
  return true;
}

void Trainer::capture_attention() {
  const auto capture = [&] {
    if (recorder_->has_attention(state_.step)) return;
    const auto begin = std::chrono::steady_clock::now();
    recorder_->attention(state_.step, attention_->capture(exec_));
    job_time_.took(Work::attention, seconds_since(begin));
    clock_.lap(exec_, "attention maps");
  };
  model_.with_average(exec_, [&] { ranks_.on_root(capture); });
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
  const auto outcome = saves_.take_outcome();
  if (!outcome) return;
  job_time_.took(Work::save, outcome->copy_seconds + outcome->write_seconds);
  recorder_->end_save(*outcome, state_, ends);
}

void Trainer::record_status(RunState state, const std::string& message) {
  if (recorder_) recorder_->status(state, message);
}

std::string Trainer::last_saved() {
  finish_save(false);
  return recorder_ ? recorder_->last_saved() : "";
}

bool Trainer::stop_agreed(bool whole) {
  int word = stop_requested();
  if (recorder_ && word == 0 && whole) word = ask_files_and_clock() << signal_bits;
  // Where nothing else is due, all ranks come from a step, and the watchdog need not wait longer than in one.
  const bool else_due = due(config_.evaluation.every) || due(config_.sampling.every) ||
                        due(config_.checkpoint.every) || captures_attention(config_, state_.step);
  std::optional<Region> region;
  if (!else_due) region.emplace("agreement");
  word = ranks_.max(word);
  signal_ = word & signal_mask;
  asked_ = word >> signal_bits;
  return signal_ != 0 || (asked_ & (stop_file | time_is_up)) != 0;
}

int Trainer::ask_files_and_clock() {
  const auto due_next = [&](Work work) {
    const long next = state_.step + 1;
    if (work == Work::evaluation) return due(config_.evaluation.every, next);
    if (work == Work::sample) return due(config_.sampling.every, next);
    return attention_ && captures_attention(config_, next);
  };
  const double now = local_time();
  if (job_time_.is_up(now, due_next)) {  // files wait for the next start
    log_info("{}", job_time_.text(now));
    return time_is_up;
  }
  recorder_->stop_if_lost();
  return triggers_->take();
}

std::string Trainer::stop_reason() const {
  if (signal_ != 0) return signal_name(signal_) + job_time_.left_text(local_time());
  if ((asked_ & stop_file) != 0) return "the file stop";
  return (asked_ & time_is_up) != 0 ? "the time limit" : fmt::format("--until {}", until_);
}

void Trainer::serve_triggers() {
  // The state does not know of it: the best one so far is chosen among those of the period.
  if ((asked_ & evaluate_now) != 0 && std::isnan(state_.validation_loss)) validate();
  if ((asked_ & attention_now) == 0) return;
  if (captures_attention(config_, 0)) return capture_attention();
  if (recorder_)
    log_warning("attention_now: ignored, as the configuration names no texts and windows (section attention)");
}

bool Trainer::due(long every, long step) const {
  return step >= config_.training.steps || (every > 0 && step % every == 0);
}

}  // namespace dekoder
