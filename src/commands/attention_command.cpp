// SPDX-License-Identifier: Apache-2.0
#include "commands/attention_command.hpp"

#include <filesystem>

#include "commands/command_files.hpp"
#include "commands/text_table.hpp"
#include "inference/attention_capture.hpp"
#include "inference/inference_model.hpp"
#include "io/run/attention_reader.hpp"
#include "kernels/gemm.hpp"
#include "model/model_summary.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

constexpr const char* source = "command line";  ///< of the probe: what tells this command's files from a run's own

/// Throws DataError where a file is no earlier output of this command.
void require_own_maps(const fs::path& file) {
  const AttentionReader reader(file);
  for (const AttentionProbe& probe : reader.info().probes)
    if (probe.source != source) throw DataError("{}: holds the maps of a run's training", file.string());
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
  const fs::path run = chosen_checkpoint(command);
  const auto model = load_inference_model(run);
  check_output(output, require_own_maps);
  const AttentionProbe probe =
      text_probe("text_0", source, command.text, model->tokenizer, model->config.model.context, "--text");
  RunConfig all_heads = model->config;
  all_heads.attention = AttentionConfig{};
  AttentionFileInfo info = attention_file_info(all_heads, model->info, model->tokenizer, {probe});
  info.writer = program_name();  // of the maps, not of the weights

  ActivationArena arena(activation_bytes(model->config.model, 1, ActivationUse::attention_maps));
  const DecoderActivations activations(arena, model->config.model, 1, ActivationUse::attention_maps);
  const std::vector<AttentionMaps> maps = AttentionCapture(model->decoder, activations, info).capture(ExecSpace());
  write_attention_file(output, info, model->info.step, maps);
  return fmt::format("step {}: {} tokens, {} layers, {} heads -> {}\n{}", model->info.step, probe.tokens.size(),
                     info.layers.size(), info.heads.size(), output.string(), statistics_text(info, maps.front()));
}

}  // namespace dekoder
