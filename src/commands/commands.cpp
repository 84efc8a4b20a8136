// SPDX-License-Identifier: Apache-2.0
#include "commands/commands.hpp"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>

#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "base/utf8.hpp"
#include "commands/attention_command.hpp"
#include "commands/benchmark.hpp"
#include "commands/checkpoint_command.hpp"
#include "commands/command_files.hpp"
#include "commands/export_command.hpp"
#include "commands/generate_command.hpp"
#include "commands/import_command.hpp"
#include "commands/initial_values.hpp"
#include "commands/job_plan.hpp"
#include "commands/predictions_command.hpp"
#include "commands/replay_command.hpp"
#include "commands/self_test.hpp"
#include "commands/tokens_command.hpp"
#include "config/run_config_yaml.hpp"
#include "config/run_origin.hpp"
#include "config/time_left.hpp"
#include "data/prepare_tokens.hpp"
#include "inference/inference_model.hpp"
#include "io/files/input_file.hpp"
#include "io/run/checkpoint_folder.hpp"
#include "kernels/gemm.hpp"
#include "model/model_summary.hpp"
#include "parallel/rank_table.hpp"
#include "parallel/threads.hpp"
#include "tensor/device.hpp"
#include "train/memory_plan.hpp"
#include "train/trainer.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// For programs: as it is.
void write_out(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw SaveError("standard output cannot be written: {}", std::strerror(errno));
}

/// For people: names of files may hold anything.
void print(const std::string& text) {
  write_out(as_printable(text));
}

/// The vocabulary that the token file gives, where the configuration leaves it open.
void resolve_vocabulary(RunConfig& config, const DataMixture& data) {
  if (config.model.vocabulary == 0) config.model.vocabulary = data.vocabulary();
  if (config.model.vocabulary < data.vocabulary())
    throw ConfigError("model.vocabulary is {} but {} has {} tokens; leave it out, or raise it",
                      config.model.vocabulary, data.name(), data.vocabulary());
}

/// The ranks of this job, once they are known to do the same thing.
Communicator join_ranks(Command command, const RunConfig& config) {
  const Communicator ranks = Communicator::world();
  require_work_for_all(config, ranks.size());
  log_ranks(ranks, device_id());
  require_same_on_all(ranks, "the backend or build",
                      fmt::format("{} {} {}", ExecSpace::name(), precision_name, product_library()));
  require_same_on_all(ranks, "the configuration", to_yaml(config));
  command.backend.clear();  // names devices
  require_same_on_all(ranks, "the command line", to_yaml(command));
  const char* bucket = std::getenv("DEKODER_BUCKET_BYTES");
  require_same_on_all(ranks, "DEKODER_BUCKET_BYTES", bucket == nullptr ? "" : bucket);
  return ranks;
}

void log_placement(const Command& command, const Communicator& ranks) {
  log_info("backend: {}", command.backend);
  if (const std::string effect = product_library_effect(); stored_is_short && !effect.empty())
    log_info("training.precision bf16: {}", effect);
  if (ranks.root()) log_threads();  // join_ranks has told of the others
}

/// The run directory of a `train` of these words. Throws ConfigError where it is another configuration's.
fs::path run_directory(const Command& command) {
  if (!command.run.empty()) return command.run;
  const fs::path root = default_run_directory(command.config);
  check_origin(command.config, root,
               read_text_file(RunPaths{root}.config(), "configuration of a run").value_or(""));
  return root;
}

std::optional<double> time_left(const Command& command) {
  std::optional<double> seconds;
  if (!command.time_left.empty()) read_time_left(command.time_left, seconds);
  return seconds;
}

ExitCode run_train(const Command& command) {
  RunConfig config = parse_run_config(command.config_text, command.config, command.sets);
  const DataMixture data = open_tokens(config);
  resolve_vocabulary(config, data);
  data.tokenizer().encode(config.sampling.prompt, "sampling.prompt");  // now, not at the first sample
  const fs::path root = run_directory(command);
  const Communicator ranks = join_ranks(command, config);
  require_same_on_all(ranks, "the token file", data.tokenizer().to_text() + data.identity());
  std::optional<RunDirectory> directory;
  ranks.on_root([&] { directory.emplace(root); });
  Trainer trainer(config, data, directory ? &*directory : nullptr, ranks,
                  {command.fresh, origin_line(command.config, root), time_left(command), command.until});
  log_placement(command, ranks);
  const ExitCode code = trainer.train();
  const std::string reason = trainer.stop_reason();
  if (code == ExitCode::finished)
    log_info("finished; the run is in {}; try `dekoder generate {}`", root.string(), root.string());
  else if (reason.starts_with("--until"))
    log_info("saved, as asked by {}; the same command with a later step, or without --until, goes on", reason);
  else
    log_info("saved {} {}; the same command goes on", reason == "the time limit" ? "before" : "after", reason);
  return code;
}

ExitCode run_prepare(const Command& command) {
  PrepareOptions options;
  options.sources = command.paths;
  options.field = command.field;
  options.skip_bad_lines = command.skip_bad_lines;
  options.output = command.output;
  options.tokenizer = {command.tokenizer, command.split, command.vocabulary};
  if (command.validation_fraction >= 0) options.validation_fraction = command.validation_fraction;
  options.threads = thread_facts().threads;
  const PrepareReport report = prepare_tokens(options);
  print(fmt::format("{}{}: {}", command.output, report.unchanged ? " is up to date" : "",
                    token_file_text(command.output, report.header)));
  const TokenFileHeader& header = report.header;
  if (report.skipped.count > 0)
    log_warning("{} bad JSON line{} left out, as --skip-bad-lines says; the first: {}", report.skipped.count,
                report.skipped.count == 1 ? " is" : "s are", report.skipped.first);
  if (header.documents > 1 && header.tokenizer.end_of_text() < 0)
    log_info("nothing separates the {} documents: the tokenizer ({}) has no token for the end of a text",
             header.documents, tokenizer_kind_name(header.tokenizer.kind()));
  if (header.split_by_document && header.validation_documents == 0 && header.validation_fraction > 0)
    log_warning(
        "none of the {} documents is held out, as --validation-fraction {} is one in {:.0f}; raise it, or give "
        "more documents",
        header.documents, header.validation_fraction, 1 / header.validation_fraction);
  return ExitCode::finished;
}

ExitCode run_eval(const Command& command) {
  const auto model = load_inference_model(command.run);
  const RunConfig& config = model->config;
  const DataMixture data = open_held_out_tokens(*model, command);
  ActivationArena arena(activation_bytes(config.model, config.micro_batch(), ActivationUse::losses));
  const DecoderActivations activations(arena, config.model, config.micro_batch(), ActivationUse::losses);
  const Evaluator evaluator(data, config.evaluation, model->decoder, activations);
  const auto measured = evaluator.evaluate(ExecSpace(), [] { return stop_requested() != 0; });
  if (!measured) return ExitCode::wants_to_go_on;
  const auto figures = [&](const Validation& validation, const std::string& digest) {
    if (!std::isfinite(validation.loss))
      throw DivergedError("{}: the validation loss of step {} is {}; use an earlier checkpoint", command.run,
                          model->info.step, std::abs(validation.loss));
    return fmt::format("validation loss {:.4f} nats per token, {:.4f} bits per byte ({} tokens, digest {})\n",
                       validation.loss, validation.bits_per_byte, validation.tokens, digest.substr(0, 12));
  };
  print(fmt::format("step {}: {}", model->info.step, figures(measured->all, evaluator.digest())));
  for (std::size_t i = 0; i < measured->sources.size() && !data.single(); ++i)
    if (measured->sources[i].tokens > 0)
      print(fmt::format("{}: {}", data.sources()[i].path().string(),
                        figures(measured->sources[i], evaluator.windows()[i].digest())));
  return ExitCode::finished;
}

ExitCode run_describe(const Command& command) {
  RunConfig config = parse_run_config(command.config_text, command.config, command.sets);
  if (config.model.vocabulary == 0) resolve_vocabulary(config, open_tokens(config));
  const auto terms = training_memory(config, ExecSpace().concurrency(), command.ranks);
  print(model_summary(config) + "\n" + training_memory_text(config, terms, command.ranks));
  return ExitCode::finished;
}

ExitCode run_plan(const Command& command) {
  RunConfig config = parse_run_config(command.config_text, command.config, command.sets);
  std::optional<DataMixture> data;
  if (config.model.vocabulary == 0 || captures_attention(config, 0)) {
    data.emplace(open_tokens(config));
    resolve_vocabulary(config, *data);
  }
  const JobPlan plan =
      plan_job(config, run_directory(command), command.ranks, command.memory, data ? &*data : nullptr);
  print(plan.text);
  if (!plan.refusal.empty()) throw ConfigError("{}", plan.refusal);
  return ExitCode::finished;
}

ExitCode run_initial_values(const Command& command) {
  const fs::path file = RunPaths{command.run}.config();
  const RunConfig config = recorded_run_config(read_config_text(file), file.string());
  if (config.model.vocabulary == 0)
    throw DataError("{}: model.vocabulary is missing; expected the configuration that a run wrote", file.string());
  write_out(initial_values_json(ExecSpace(), config));
  return ExitCode::finished;
}

ExitCode run_bench(const Command& command) {
  RunConfig config = parse_run_config(command.config_text, command.config, command.sets);
  if (config.model.vocabulary == 0) resolve_vocabulary(config, open_tokens(config));
  const Communicator ranks = join_ranks(command, config);
  log_placement(command, ranks);
  const BenchmarkResult result = benchmark(config, command.steps, ranks);
  command.json ? write_out(benchmark_json(config, result)) : print(benchmark_text(config, result));
  return ExitCode::finished;
}

ExitCode run_replay(const Command& command) {
  const Replay replay = replay_step(command);
  print(replay.text);
  return replay.code;
}

const char* state_name(const RunStatus& status, const std::optional<RunLock::Holder>& trainer) {
  return trainer ? "running" : run_state_name(status.state);
}

std::string status_json(const fs::path& root, const RunStatus& status, const LastMetrics& last,
                        const std::optional<RunLock::Holder>& trainer,
                        const std::vector<ConfigDifference>& changes) {
  using Json = nlohmann::ordered_json;  // NaN is written as null
  Json changed = Json::object();
  for (const ConfigDifference& change : changes) changed[change.key] = {change.before, change.now};
  const auto number = [](const auto& row, auto member) { return row ? Json((*row).*member) : Json(); };
  const Json report = {{"run", root.string()},
                       {"state", state_name(status, trainer)},
                       {"running", trainer.has_value()},
                       {"saved_step", status.step},
                       {"steps", status.steps},
                       {"step", number(last.step, &StepMetrics::step)},
                       {"loss", number(last.step, &StepMetrics::loss)},
                       {"validation_loss", number(last.evaluation, &EvaluationMetrics::validation_loss)},
                       {"bits_per_byte", number(last.evaluation, &EvaluationMetrics::bits_per_byte)},
                       {"heartbeat_age", number(trainer, &RunLock::Holder::heartbeat_age)},
                       {"best_step", number(last.best, &EvaluationMetrics::step)},
                       {"best_validation_loss", number(last.best, &EvaluationMetrics::validation_loss)},
                       {"best_step_on_another_set", number(last.best_on_another_set, &EvaluationMetrics::step)},
                       {"best_validation_loss_on_another_set",
                        number(last.best_on_another_set, &EvaluationMetrics::validation_loss)},
                       {"message", status.message},
                       {"changed", changed}};
  return report.dump() + "\n";
}

std::string status_text(const RunStatus& status, const LastMetrics& last,
                        const std::optional<RunLock::Holder>& trainer,
                        const std::vector<ConfigDifference>& changes) {
  const char* state = state_name(status, trainer);
  std::string text = status.step == 0
                         ? fmt::format("{}: at the beginning, {} steps to go\n", state, status.steps)
                         : fmt::format("{}: saved at step {} of {}\n", state, status.step, status.steps);
  if (trainer) text += "trained by " + trainer->text + "\n";
  if (last.step)
    text += fmt::format("step {}: loss {:.4f}, {:.0f} tokens/s\n", last.step->step, last.step->loss,
                        last.step->tokens_per_second);
  if (last.evaluation)
    text += fmt::format("step {}: validation loss {:.4f} nats per token, {:.4f} bits per byte\n",
                        last.evaluation->step, last.evaluation->validation_loss, last.evaluation->bits_per_byte);
  if (last.best)
    text += fmt::format("best validation loss {:.4f}, at step {}\n", last.best->validation_loss, last.best->step);
  if (last.best_on_another_set)
    text += fmt::format("best on other validation tokens than the last one's, not comparable: {:.4f}, at step {}\n",
                        last.best_on_another_set->validation_loss, last.best_on_another_set->step);
  for (const ConfigDifference& change : changes)
    text += fmt::format("{}: {} in the run, {} here\n", change.key, change.before, change.now);
  return status.message.empty() ? text : text + status.message + "\n";
}

/// Where the training of this configuration stands, which may ask for more steps than the run has had.
RunStatus status_of_training(const RunConfig& config, const std::optional<RunStatus>& found) {
  RunStatus status = found.value_or(RunStatus{});
  status.steps = config.training.steps;
  if (status.state == RunState::finished && status.step < status.steps) status.state = RunState::resumable;
  return status;
}

/// The settings in which `config` differs from that of the run's last start; none where there was none, or it
/// cannot be read.
std::vector<ConfigDifference> changes_since(const RunPaths& paths, RunConfig config) {
  const auto text = read_text_file(paths.config(), "configuration of a run");
  if (!text) return {};
  const RunConfig before = recorded_run_config(*text, paths.config().string());
  if (config.model.vocabulary == 0) config.model.vocabulary = before.model.vocabulary;  // that of the token file
  return config_differences(before, config);
}

ExitCode run_status(const Command& command) {
  const RunPaths paths{run_directory(command)};
  auto status = read_run_status(paths);
  std::vector<ConfigDifference> changes;
  if (!command.config.empty()) {
    const RunConfig config = parse_run_config(command.config_text, command.config, command.sets);
    if (status) changes = changes_since(paths, config);
    status = status_of_training(config, status);
  }
  if (!status)
    throw DataError("{}: no run here (there is no file {}); expected the run directory of `dekoder train`",
                    command.run, paths.status().string());
  const LastMetrics last = read_last_metrics(paths.metrics());
  const auto trainer = RunLock::holder(paths.lock());
  command.json ? write_out(status_json(paths.root, *status, last, trainer, changes))
               : print(status_text(*status, last, trainer, changes));
  return ExitCode::finished;
}

}  // namespace

ExitCode run_command(const Command& command) {
  if (command.name == "train") return run_train(command);
  if (command.name == "prepare") return run_prepare(command);
  if (command.name == "tokens") return print(show_tokens(command)), ExitCode::finished;
  if (command.name == "eval") return run_eval(command);
  if (command.name == "generate") return generate_texts(command, write_out);
  if (command.name == "attention") return print(record_attention(command)), ExitCode::finished;
  if (command.name == "predictions") return print(record_predictions(command)), ExitCode::finished;
  if (command.name == "export") return print(export_model(command)), ExitCode::finished;
  if (command.name == "import") return print(import_model(command)), ExitCode::finished;
  if (command.name == "describe") return run_describe(command);
  if (command.name == "plan") return run_plan(command);
  if (command.name == "initial-values") return run_initial_values(command);
  if (command.name == "bench") return run_bench(command);
  if (command.name == "status") return run_status(command);
  if (command.name == "checkpoint") return run_checkpoint_command(command, print);
  if (command.name == "selftest") return run_self_test(command, print);
  if (command.name == "replay") return run_replay(command);
  throw ConfigError("unknown command '{}'; expected launcher and plug-in of one build", command.name);
}

}  // namespace dekoder
