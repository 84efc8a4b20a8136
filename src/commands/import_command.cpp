// SPDX-License-Identifier: Apache-2.0
#include "commands/import_command.hpp"

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/error.hpp"
#include "config/config_fields.hpp"
#include "config/run_config_yaml.hpp"
#include "config/setting_value.hpp"
#include "huggingface/model_family.hpp"
#include "huggingface/tokenizer_folder.hpp"
#include "huggingface/weight_parts.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/input_file.hpp"
#include "io/run/checkpoint.hpp"
#include "io/run/run_directory.hpp"
#include "kernels/gemm.hpp"
#include "model/decoder.hpp"
#include "tensor/random_stream.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// The foreign model's keys, settings that fit a fine-tuning on any machine, and --set over both.
RunConfig config_of(const ModelConfig& model, const std::string& where, const std::vector<std::string>& sets) {
  RunConfig foreign;
  foreign.model = model;
  std::string text = fmt::format("version: {}\nmodel:\n", config_format().version);
  visit_fields(foreign, [&](std::string_view key, const auto& member, const Range&) {
    constexpr std::string_view section = "model.";
    if (key.starts_with(section)) text += fmt::format("  {}: {}\n", key.substr(section.size()), yaml_value(member));
  });
  text += "training: {batch: 8, micro_batch: 1, learning_rate: 5.0e-5}\n";
  const RunConfig config = parse_run_config(text, where + ", as settings", sets);
  constexpr std::array of_training = {"model.context", "model.vocabulary_multiple", "model.dropout",
                                      "model.initialisation"};
  for (const ConfigDifference& change : config_differences(foreign, config))
    if (change.key.starts_with("model.") && std::ranges::count(of_training, change.key) == 0)
      throw ConfigError("{}: {} is {} in the model and {} by --set; expected the model's own: leave it out", where,
                        change.key, change.before, change.now);
  if (model.positions == Positions::learned && config.model.context > model.context)
    throw ConfigError(
        "{}: model.context is {} by --set; expected at most {}, as many positions as the model learned", where,
        config.model.context, model.context);
  return config;
}

/// What `generate` does not end a text with and transformers does, by eos_token_id of generation_config.json, else
/// of config.json: a line for each.
std::string other_ends(const fs::path& folder, const std::string& config, const Tokenizer& tokenizer) {
  const fs::path generation = folder / "generation_config.json";
  const auto text = read_text_file(generation, "generation_config.json of a model of transformers");
  std::vector<Token> ends;
  if (text) ends = read_ends(*text, generation.string());
  if (ends.empty()) ends = read_ends(config, (folder / "config.json").string());
  std::string lines;
  for (const Token end : ends)
    if (end != tokenizer.end_of_text() && end < tokenizer.vocabulary()) {
      std::string bytes;
      tokenizer.append_bytes(bytes, end);
      lines += fmt::format("transformers ends a text with token {}, too: give generate --stop '{}'\n", end,
                           excerpt(bytes));
    }
  return lines;
}

void require_no_run(const RunPaths& paths) {
  std::error_code ignored;
  for (const fs::path& file : paths.of_a_run()) {
    // Of a start that was refused, or an import that was killed.
    if (file == paths.checkpoints() && std::ranges::all_of(folder_entries(file, ignored), [](const auto& left) {
          return is_unfinished_file(left);
        }))
      continue;
    if (fs::symlink_status(file, ignored).type() != fs::file_type::not_found)
      throw DataError("{}: holds a run already ({}); expected a new folder: name another with -o",
                      paths.root.string(), file.filename().string());
  }
}

/// Parameters from the folder, moments zero.
std::vector<NamedBuffer> buffers_of(const std::vector<WeightPart>& parts, const SafetensorsFolder& weights) {
  std::vector<NamedBuffer> buffers;
  for (const char* group : state_groups) {
    NamedBuffer buffer{group, {}};
    if (std::string_view(group) == parameter_group || std::string_view(group) == average_group)
      buffer.get = [&](const ParameterEntry& entry) { return read_parameter(entry, parts, weights); };
    else
      buffer.get = [](const ParameterEntry& entry) { return HostBuffer("import.moment", entry.size()); };
    buffers.push_back(std::move(buffer));
  }
  return buffers;
}

void write_run(const fs::path& root, const CheckpointInfo& info, const ParameterLayout& layout,
               const std::vector<NamedBuffer>& buffers, long steps) {
  const RunDirectory directory(root);
  write_checkpoint(directory.paths().checkpoints(), info, layout, buffers);
  directory.write_config(info.config_yaml);
  directory.write_status({RunState::resumable, 0, steps, ""});
}

}  // namespace

std::string import_model(const Command& command) {
  const fs::path folder = command.folder, file = folder / "config.json";
  const std::string where = file.string();
  const std::optional<std::string> text = read_text_file(file, "config.json of a model of transformers");
  if (!text) throw DataError("{}: there is none; expected the folder of a model as transformers writes it", where);
  const ForeignModel foreign = read_model_config(*text, where);
  const RunConfig config = config_of(foreign.model, where, command.sets);
  const Tokenizer tokenizer = read_tokenizer_folder(folder);
  if (tokenizer.vocabulary() > config.model.vocabulary)
    throw DataError("{}: vocab_size is {}, and the tokenizer has {} tokens; expected at least as many", where,
                    config.model.vocabulary, tokenizer.vocabulary());
  tokenizer.encode(config.sampling.prompt, "sampling.prompt");
  const std::string ends = other_ends(folder, *text, tokenizer);
  const ParameterLayout layout = run_parameters(config);
  const std::vector<WeightPart> parts = weight_parts(foreign.family, config.model, layout);
  const SafetensorsFolder weights(folder);
  require_parts(parts, weights, config.model.tied_head);

  const fs::path root = command.output;
  require_no_run(RunPaths{root});
  CheckpointInfo info;
  info.config_yaml = to_yaml(config);
  info.tokenizer = tokenizer.to_text();
  const std::string identity = info.config_yaml + fs::absolute(root).string();
  info.run_id = fmt::format("{:016x}", site_of(identity.c_str()));
  info.writer = program_name();
  std::error_code ignored;
  const bool is_new = !fs::exists(root, ignored);
  try {
    write_run(root, info, layout, buffers_of(parts, weights), config.training.steps);
  } catch (...) {
    if (is_new)
      for (const fs::path& made : {RunPaths{root}.config(), RunPaths{root}.checkpoints(), root})
        fs::remove(made, ignored);  // a folder only where it is empty
    throw;
  }
  return fmt::format(
      "{} parameters, {} tokenizer of {} tokens, context {} -> {}\n{}"
      "go on with:\n"
      "  dekoder generate {}\n"
      "  dekoder train {} --run {} --set data.tokens=FILE   (prepared with the same tokenizer)\n",
      layout.parameters() - padding_parameters(config.model), tokenizer_kind_name(tokenizer.kind()),
      tokenizer.vocabulary(), config.model.context, root.string(), ends, root.string(),
      RunPaths{root}.config().string(), root.string());
}

}  // namespace dekoder
