// SPDX-License-Identifier: Apache-2.0
#include "commands/attention_command.hpp"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "commands/text_table.hpp"
#include "inference/attention_capture.hpp"
#include "inference/inference_model.hpp"
#include "io/files/durable_file.hpp"
#include "io/run/attention_reader.hpp"
#include "io/run/checkpoint_folder.hpp"
#include "io/run/run_directory.hpp"
#include "model/model_summary.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

constexpr const char* source = "command line";  ///< of the probe: what tells this command's files from a run's own

/// The checkpoint of --step; the run directory or the checkpoint file as given where there is no --step.
fs::path run_or_file(const Command& command) {
  if (command.step < 0) return command.run;
  if (fs::is_regular_file(command.run))
    throw ConfigError("--step {} and a checkpoint file, {}; give the run directory, or leave --step out",
                      command.step, command.run);
  const fs::path folder = RunPaths{command.run}.checkpoints();
  if (!fs::is_directory(folder))
    throw DataError("{}: no such run directory; expected what `dekoder train --run` wrote", command.run);
  const fs::path file = folder / checkpoint_file_name(command.step);
  if (fs::exists(file)) return file;
  std::vector<long> steps;
  for (const fs::path& other : list_checkpoints(folder)) steps.push_back(checkpoint_step(other));
  std::reverse(steps.begin(), steps.end());
  const std::string others = steps.empty() ? ", nor of any other; train first"
                                           : fmt::format("; there are those of steps {}", fmt::join(steps, ", "));
  throw DataError("{}: no checkpoint of step {}{}", command.run, command.step, others);
}

/// Refuses an output whose place holds anything but an earlier output of this command, or that cannot be written.
void check_output(const fs::path& output) {
  const fs::path target = output_target(output);
  if (const fs::path folder = target.parent_path();
      ::access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK) != 0)
    throw DataError("{}: its folder cannot be written: {}; name another file with -o", output.string(),
                    std::strerror(errno));
  if (!fs::exists(target)) return;
  try {
    const AttentionReader reader(target);
    for (const AttentionProbe& probe : reader.info().probes)
      if (probe.source != source) throw DataError("{}: holds the maps of a run's training", target.string());
  } catch (const DataError& error) {
    throw DataError("{}; it is left alone: name another file with -o", error.what());
  }
}

/// One line per head.
std::string statistics_text(const AttentionFileInfo& info, const AttentionMaps& maps) {
  std::vector<std::vector<std::string>> rows = {{"layer.head"}};
  rows[0].insert(rows[0].end(), info.statistic_names.begin(), info.statistic_names.end());
  std::size_t i = 0;
  for (const int layer : info.layers)
    for (const int head : info.heads) {
      rows.push_back({fmt::format("{}.{}", layer, head)});
      for (std::size_t s = 0; s < info.statistic_names.size(); ++s)
        rows.back().push_back(fmt::format("{:.4f}", maps.statistics[i++]));
    }
  return text_table(rows);
}

}  // namespace

std::string record_attention(const Command& command) {
  const fs::path folder =
      fs::is_regular_file(command.run) ? fs::path(command.run).parent_path() : fs::path(command.run);
  const fs::path output = command.output.empty() ? folder / "attention-text.h5" : fs::path(command.output);
  const fs::path run = run_or_file(command);
  const auto model = load_inference_model(run);
  check_output(output);
  const AttentionProbe probe =
      text_probe("text_0", source, command.text, model->tokenizer, model->config.model.context, "--text");
  RunConfig all_heads = model->config;
  all_heads.attention = AttentionConfig{};
  const AttentionFileInfo info = attention_file_info(all_heads, model->info, model->tokenizer, {probe});

  ActivationArena arena(activation_bytes(model->config.model, 1, ActivationUse::attention_maps));
  const DecoderActivations activations(arena, model->config.model, 1, ActivationUse::attention_maps);
  const std::vector<AttentionMaps> maps = AttentionCapture(model->decoder, activations, info).capture(ExecSpace());
  write_attention_file(output, info, model->info.step, maps);
  return fmt::format("step {}: {} tokens, {} layers, {} heads -> {}\n{}", model->info.step, probe.tokens.size(),
                     info.layers.size(), info.heads.size(), output.string(), statistics_text(info, maps.front()));
}

}  // namespace dekoder
