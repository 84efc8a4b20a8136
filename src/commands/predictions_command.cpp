// SPDX-License-Identifier: Apache-2.0
#include "commands/predictions_command.hpp"

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "commands/command_files.hpp"
#include "data/batch_loader.hpp"
#include "inference/inference_model.hpp"
#include "inference/token_predictions.hpp"
#include "io/files/durable_file.hpp"
#include "io/run/prediction_file.hpp"
#include "io/run/run_directory.hpp"
#include "io/run/step_files.hpp"
#include "kernels/gemm.hpp"
#include "model/model_summary.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// predictions/step-<step>.h5 of the run directory, whose folder is made where it is missing.
fs::path default_output(const fs::path& run, long step) {
  fs::path root = run;
  if (fs::is_regular_file(run)) {
    root = fs::absolute(run).parent_path();
    if (root.filename() == "checkpoints") root = root.parent_path();
  }
  const fs::path folder = RunPaths{root}.predictions();
  if (const std::string obstacle = folder_obstacle(folder); !obstacle.empty())
    throw DataError("{}: {}, expected a folder for predictions, or none yet; move it away or name a file with -o",
                    folder.string(), obstacle);
  std::error_code failure;
  fs::create_directory(link_target(folder), failure);
  if (failure)
    throw DataError("{}: cannot be made: {}; name a file elsewhere with -o", folder.string(), failure.message());
  return folder / step_file_name("step-", step);
}

int kept_of_each(const Command& command, int vocabulary) {
  if (command.top > vocabulary)
    throw ConfigError("--top is {}; expected at most {}, the vocabulary of the model", command.top, vocabulary);
  return command.top > 0 ? command.top : std::min(10, vocabulary);
}

PredictionFileInfo info_of(const InferenceModel& model, const TokenDataset& data) {
  PredictionFileInfo info;
  info.step = model.info.step;
  info.run_id = model.info.run_id;
  info.config_yaml = model.info.config_yaml;
  info.writer = program_name();
  info.tokenizer = tokenizer_kind_name(model.tokenizer.kind());
  info.source = data.header().source;
  info.data_hash = data.header().identity();
  info.validation_tokens = data.validation_tokens();
  info.validation_hash = ValidationWindows(data, model.config.model.context, 0).digest();
  info.context = model.config.model.context;
  info.token_texts.resize(std::size_t(model.config.model.vocabulary));
  for (Token token = 0; token < model.tokenizer.vocabulary(); ++token)
    info.token_texts[std::size_t(token)] = model.tokenizer.listed(token);
  return info;
}

std::string table_text(const PredictionTable& table, std::size_t windows) {
  const auto share = [&](int places) {
    const auto within = std::ranges::count_if(table.rank, [&](int rank) { return rank < places; });
    return 100.0 * double(within) / double(table.rank.size());
  };
  const double nats = std::accumulate(table.surprise.begin(), table.surprise.end(), 0.0);
  return fmt::format(
      "{} windows, {} tokens: surprise {:.4f} nats per token, {:.1f} % guessed, {:.1f} % among the best {}",
      windows, table.truth.size(), nats / double(table.truth.size()), share(1), share(table.top), table.top);
}

}  // namespace

std::string record_predictions(const Command& command) {
  const auto model = load_inference_model(chosen_checkpoint(command));
  const ModelConfig& shape = model->config.model;
  const DataMixture mixture = open_held_out_tokens(*model, command);
  if (!mixture.single())
    throw ConfigError("{}: the run has {} token files ({}); name the one to predict with --tokens-file",
                      command.run, mixture.sources().size(), fmt::join(model->config.data.tokens, ", "));
  const TokenDataset& data = mixture.sources().front();
  const int top = kept_of_each(command, shape.vocabulary);
  const std::vector<PredictionWindow> windows =
      prediction_windows(data.validation_tokens(), shape.context, command.windows);
  const fs::path output =
      command.output.empty() ? default_output(command.run, model->info.step) : fs::path(command.output);
  check_output(output, require_prediction_file);

  const int B = int(std::min(windows.size(), std::size_t(model->config.micro_batch())));
  ActivationArena arena(activation_bytes(shape, B, ActivationUse::losses));
  const DecoderActivations activations(arena, shape, B, ActivationUse::losses);
  const PredictionTable table = predict_tokens(ExecSpace(), data, windows, top, model->decoder, activations);
  write_prediction_file(output, info_of(*model, data), table);
  return fmt::format("step {}: {} -> {}\n", model->info.step, table_text(table, windows.size()), output.string());
}

}  // namespace dekoder
