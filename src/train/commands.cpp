// SPDX-License-Identifier: Apache-2.0
#include "train/commands.hpp"

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "config/run_config_yaml.hpp"
#include "data/prepare_tokens.hpp"
#include "io/checkpoint_folder.hpp"
#include "model/model_summary.hpp"
#include "train/benchmark.hpp"
#include "train/comparison_report.hpp"
#include "train/inference_model.hpp"
#include "train/trainer.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

TokenDataset open_tokens(const RunConfig& config) {
  if (config.data.tokens.empty())
    throw ConfigError(
        "data.tokens is not set; expected a token file: make one with `dekoder prepare TEXT -o FILE` and name it");
  return TokenDataset(config.data.tokens);
}

/// The vocabulary that the token file gives, where the configuration leaves it open.
void resolve_vocabulary(RunConfig& config, const TokenDataset& data) {
  if (config.model.vocabulary == 0) config.model.vocabulary = data.vocabulary();
  if (config.model.vocabulary < data.vocabulary())
    throw ConfigError("model.vocabulary is {} but {} has {} tokens; leave it out, or raise it",
                      config.model.vocabulary, data.path().string(), data.vocabulary());
}

/// Moves what an earlier run left into previous-<n>/ of the run directory.
void set_aside(const RunPaths& paths) {
  int n = 1;
  while (fs::exists(paths.root / fmt::format("previous-{}", n))) ++n;
  const fs::path aside = paths.root / fmt::format("previous-{}", n);
  for (const fs::path& file :
       {paths.config(), paths.metrics(), paths.samples(), paths.attention(), paths.status(), paths.checkpoints()}) {
    if (!fs::exists(file)) continue;
    fs::create_directories(aside);
    fs::rename(file, aside / file.filename());
  }
  if (fs::exists(aside)) log_info("--fresh: earlier files are in {}", aside.string());
}

ExitCode run_train(const Command& command) {
  RunConfig config = load_run_config(command.config, command.sets);
  const TokenDataset data = open_tokens(config);
  resolve_vocabulary(config, data);
  data.tokenizer().encode(config.sampling.prompt);  // characters it lacks are named now, not at the first sample
  const fs::path root =
      command.run.empty() ? fs::path("runs") / fs::path(command.config).stem() : fs::path(command.run);
  const RunDirectory directory(root);
  if (command.fresh) set_aside(directory.paths());
  const Communicator ranks = Communicator::world();
  Trainer trainer(config, data, directory, ranks);
  const ExitCode code = trainer.train();
  if (code == ExitCode::finished)
    log_info("finished; the run is in {}; try `dekoder generate {}`", root.string(), root.string());
  else
    log_info("saved after signal {}; the same command goes on", stop_requested());
  return code;
}

ExitCode run_prepare(const Command& command) {
  const PrepareReport report = prepare_tokens(command.text, command.output, parse_tokenizer_kind(command.tokenizer),
                                              command.validation_fraction);
  const TokenFileHeader& header = report.header;
  print(fmt::format("{}{}: {} tokens of {} ({} tokenizer, vocabulary {}), {} for training, {} held out\n",
                    command.output, report.unchanged ? " is up to date" : "", header.tokens, header.source,
                    command.tokenizer, header.tokenizer.vocabulary(), header.training_tokens,
                    header.validation_tokens()));
  return ExitCode::finished;
}

/// A run directory or a checkpoint file as the newest usable checkpoint's fields.
CheckpointInfo info_of(const fs::path& run) {
  if (fs::is_regular_file(run)) return read_checkpoint_info(run);
  if (!fs::is_directory(run))
    throw DataError("{}: no such run directory or checkpoint; expected what `dekoder train --run` wrote",
                    run.string());
  return newest_checkpoint_info(RunPaths{run}.checkpoints()).info;
}

/// Loads the parameters and says which state they are of.
CheckpointInfo load_parameters(const fs::path& run, const ParameterStore& store) {
  if (fs::is_regular_file(run)) return read_checkpoint_parameters(run, store);
  return load_newest_parameters(RunPaths{run}.checkpoints(), store).info;
}

ExitCode run_eval(const Command& command) {
  RunConfig config = parse_run_config(info_of(command.run).config_yaml, command.run, {});
  if (!command.tokens_file.empty()) config.data.tokens = command.tokens_file;
  const TokenDataset data = open_tokens(config);
  const InferenceModel model(config.model, config.micro_batch());
  const CheckpointInfo info = load_parameters(command.run, model.store);
  if (data.tokenizer().to_text() != info.tokenizer)
    throw DataError(
        "{}: has another tokenizer or vocabulary than the checkpoint; expected tokens made in the same way",
        data.path().string());
  const Evaluator evaluator(data, config.evaluation, model.decoder, model.activations);
  if (!evaluator.has_tokens())
    throw DataError("{}: has no held-out part; prepare it with --validation-fraction above 0",
                    data.path().string());
  const auto validation = evaluator.evaluate(ExecSpace(), [] { return stop_requested() != 0; });
  if (!validation) return ExitCode::wants_to_go_on;
  print(fmt::format("step {}: validation loss {:.4f} nats per token, {:.4f} bits per byte ({} tokens, digest {})\n",
                    info.step, validation->loss, validation->bits_per_byte, validation->tokens,
                    evaluator.windows().digest().substr(0, 12)));
  return ExitCode::finished;
}

ExitCode run_generate(const Command& command) {
  const RunConfig config = parse_run_config(info_of(command.run).config_yaml, command.run, {});
  ParameterStore store(decoder_parameters(config.model));
  const CheckpointInfo info = load_parameters(command.run, store);
  const Tokenizer tokenizer = Tokenizer::from_text(info.tokenizer, command.run);
  const std::vector<Token> prompt = tokenizer.encode(command.prompt);
  const Decoder decoder(config.model, store);
  Generator generator(decoder);
  const SamplingConfig sampling{
      0, command.prompt, command.tokens, command.temperature, command.top_k, command.top_p, command.seed};
  StreamDecoder text(tokenizer);
  print(command.prompt);
  generator.generate(ExecSpace(), prompt, sampling, [&](Token token) {
    print(text.push(token));
    return stop_requested() == 0;
  });
  print(text.finish() + "\n");
  return ExitCode::finished;
}

/// One line per head.
std::string statistics_table(const AttentionFileInfo& info, const AttentionMaps& maps) {
  std::string text = fmt::format("{:<12}", "layer.head");
  for (const std::string& name : info.statistic_names) text += fmt::format(" {:>15}", name);
  text += "\n";
  std::size_t i = 0;
  for (const int layer : info.layers)
    for (const int head : info.heads) {
      text += fmt::format("{:<12}", fmt::format("{}.{}", layer, head));
      for (std::size_t s = 0; s < info.statistic_names.size(); ++s)
        text += fmt::format(" {:>15.4f}", maps.statistics[i++]);
      text += "\n";
    }
  return text;
}

ExitCode run_attention(const Command& command) {
  const bool one_file = fs::is_regular_file(command.run);
  const fs::path folder = one_file ? fs::path(command.run).parent_path() : fs::path(command.run);
  fs::path run = command.run;
  if (command.step >= 0) {
    if (one_file)
      throw ConfigError("--step {} and a checkpoint file, {}; give the run directory, or leave --step out",
                        command.step, command.run);
    run = RunPaths{command.run}.checkpoints() / checkpoint_file_name(command.step);
    if (!fs::exists(run)) {
      std::vector<long> steps;
      for (const fs::path& file : list_checkpoints(run.parent_path())) steps.push_back(checkpoint_step(file));
      throw DataError("{}: no checkpoint of step {}; there are those of steps {}", command.run, command.step,
                      fmt::join(steps, ", "));
    }
  }
  const RunConfig config = parse_run_config(info_of(run).config_yaml, run.string(), {});
  const InferenceModel model(config.model, 1);
  const CheckpointInfo info = load_parameters(run, model.store);
  const Tokenizer tokenizer = Tokenizer::from_text(info.tokenizer, run.string());
  const AttentionProbe probe =
      text_probe("text_0", "command line", command.text, tokenizer, config.model.context, "--text");
  RunConfig all_heads = config;
  all_heads.attention = AttentionConfig{};
  const AttentionFileInfo file_info = attention_file_info(all_heads, info, tokenizer, {probe});

  const std::vector<AttentionMaps> maps =
      AttentionCapture(model.decoder, model.activations, file_info).capture(ExecSpace());
  const fs::path output = command.output.empty() ? folder / "attention-text.h5" : fs::path(command.output);
  AttentionFile(output, file_info, -1).append(info.step, maps);
  print(fmt::format("step {}: {} tokens, {} layers, {} heads -> {}\n{}", info.step, probe.tokens.size(),
                    file_info.layers.size(), file_info.heads.size(), output.string(),
                    statistics_table(file_info, maps.front())));
  return ExitCode::finished;
}

ExitCode run_describe(const Command& command) {
  RunConfig config = load_run_config(command.config, command.sets);
  if (config.model.vocabulary == 0) resolve_vocabulary(config, open_tokens(config));
  print(model_summary(config));
  return ExitCode::finished;
}

ExitCode run_bench(const Command& command) {
  RunConfig config = load_run_config(command.config, command.sets);
  if (config.model.vocabulary == 0) resolve_vocabulary(config, open_tokens(config));
  const BenchmarkResult result = benchmark(config, command.steps);
  print(command.json ? benchmark_json(config, result) : benchmark_text(config, result));
  return ExitCode::finished;
}

ExitCode run_compare(const Command& command) {
  std::vector<ComparedRun> runs;
  for (const std::string& root : command.runs) runs.push_back(read_compared_run(root));
  const RunComparison comparison = compare_runs(ExecSpace(), runs);
  print(command.json ? comparison_json(comparison) : comparison_text(comparison));
  return ExitCode::finished;
}

ExitCode run_status(const Command& command) {
  const RunPaths paths{command.run};
  const auto status = read_run_status(paths);
  if (!status)
    throw DataError("{}: no run here (there is no file {}); expected the run directory of `dekoder train`",
                    command.run, paths.status().string());
  const LastMetrics last = read_last_metrics(paths.metrics());
  const std::string trainer = RunLock::live_holder(paths.lock());
  if (command.json) {
    using Json = nlohmann::ordered_json;  // NaN is written as null
    const auto number = [](const auto& row, auto member) { return row ? Json((*row).*member) : Json(); };
    const Json report = {{"state", run_state_name(status->state)},
                         {"running", !trainer.empty()},
                         {"saved_step", status->step},
                         {"steps", status->steps},
                         {"step", number(last.step, &StepMetrics::step)},
                         {"loss", number(last.step, &StepMetrics::loss)},
                         {"validation_loss", number(last.evaluation, &EvaluationMetrics::validation_loss)},
                         {"bits_per_byte", number(last.evaluation, &EvaluationMetrics::bits_per_byte)}};
    print(report.dump() + "\n");
    return ExitCode::finished;
  }
  print(fmt::format("{}: saved at step {} of {}\n", trainer.empty() ? run_state_name(status->state) : "running",
                    status->step, status->steps));
  if (!trainer.empty()) print("trained by " + trainer + "\n");
  if (last.step)
    print(fmt::format("step {}: loss {:.4f}, {:.0f} tokens/s\n", last.step->step, last.step->loss,
                      last.step->tokens_per_second));
  if (last.evaluation)
    print(fmt::format("step {}: validation loss {:.4f} nats per token, {:.4f} bits per byte\n",
                      last.evaluation->step, last.evaluation->validation_loss, last.evaluation->bits_per_byte));
  if (!status->message.empty()) print(status->message + "\n");
  return ExitCode::finished;
}

}  // namespace

ExitCode run_command(const Command& command) {
  if (command.name == "train") return run_train(command);
  if (command.name == "prepare") return run_prepare(command);
  if (command.name == "eval") return run_eval(command);
  if (command.name == "generate") return run_generate(command);
  if (command.name == "attention") return run_attention(command);
  if (command.name == "describe") return run_describe(command);
  if (command.name == "bench") return run_bench(command);
  if (command.name == "compare") return run_compare(command);
  if (command.name == "status") return run_status(command);
  throw ConfigError("unknown command '{}'; expected launcher and plug-in of one build", command.name);
}

}  // namespace dekoder
