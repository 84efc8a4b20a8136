// SPDX-License-Identifier: Apache-2.0
#include "commands/export_command.hpp"

#include <algorithm>
#include <filesystem>

#include "base/decimal.hpp"
#include "base/log.hpp"
#include "commands/command_files.hpp"
#include "config/run_config_yaml.hpp"
#include "huggingface/model_card.hpp"
#include "huggingface/model_family.hpp"
#include "huggingface/tokenizer_folder.hpp"
#include "huggingface/weight_parts.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/input_file.hpp"
#include "io/run/checkpoint_folder.hpp"
#include "io/run/run_directory.hpp"
#include "io/safetensors/safetensors_writer.hpp"
#include "model/decoder.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

constexpr const char* config_name = "config.json";

/// A saved model: no pass is computed, so it has no decoder.
struct SavedModel {
  explicit SavedModel(const fs::path& checkpoint)
      : info(read_checkpoint_info(checkpoint)),
        config(recorded_run_config(info.config_yaml, checkpoint.string())),
        tokenizer(Tokenizer::from_text(info.tokenizer, checkpoint.string())),
        store(run_parameters(config), Gradients::none) {
    read_checkpoint_parameters(checkpoint, store);
  }

  CheckpointInfo info;
  RunConfig config;
  Tokenizer tokenizer;
  ParameterStore store;
};

/// The checkpoint of --step or --best, or the newest.
SavedModel open_model(const Command& command) {
  const fs::path run = chosen_checkpoint(command);
  std::error_code ignored;
  if (fs::is_regular_file(run, ignored)) return SavedModel(run);
  const fs::path folder = RunPaths{run}.checkpoints();
  if (!fs::is_directory(folder, ignored))
    throw DataError("{}: no such run directory or checkpoint; expected what `dekoder train --run` wrote",
                    run.string());
  if (command.best) {
    const CheckpointInfo newest = newest_checkpoint(folder, read_checkpoint_info).info;
    if (newest.best_step < 0)
      throw DataError("{}: no checkpoint is the best yet, as none has a validation loss; leave --best out",
                      run.string());
    return SavedModel(folder / checkpoint_file_name(newest.best_step));
  }
  std::optional<SavedModel> model;
  newest_checkpoint(folder, [&](const fs::path& file) {
    model.reset();  // a damaged newer one: its memory first
    model.emplace(file);
    return model->info;
  });
  return std::move(*model);
}

/// Whether an export writes files of this name.
bool is_of_an_export(const fs::path& file) {
  const std::string name = file.filename().string();
  const auto is_any_of = [&](std::initializer_list<const char*> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  return is_unfinished_file(file) || (name.starts_with("model") && name.ends_with(".safetensors")) ||
         is_any_of({"model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
                    "generation_config.json", "README.md"});
}

/// The folder that is to be written, made where it is missing.
class NewFolder {
 public:
  explicit NewFolder(const fs::path& folder) : folder_(folder) {
    if (const std::string obstacle = folder_obstacle(folder); !obstacle.empty())
      throw DataError("{}: {}; expected a new folder: name another with -o", folder.string(), obstacle);
    std::error_code failure;
    made_ = fs::create_directories(folder, failure);
    if (failure)
      throw DataError("{}: cannot be made: {}; name another with -o", folder.string(), failure.message());
    const std::vector<fs::path> entries = folder_entries(folder, failure);
    if (failure) throw_read_error(folder.string(), failure.value());
    if (!std::ranges::all_of(entries, is_of_an_export))  // config.json, the last one, is none of them
      throw DataError("{}: is not empty; expected a new folder: remove it, or name another with -o",
                      folder.string());
    for (const fs::path& left_over : entries)
      if (!fs::remove(left_over, failure) && failure)
        throw DataError("{}: of an export that was cut off, cannot be removed: {}", left_over.string(),
                        failure.message());
  }
  /// Nothing half-written stays.
  ~NewFolder() {
    if (done_) return;
    std::error_code ignored;
    for (const fs::path& entry : folder_entries(folder_, ignored))
      if (is_of_an_export(entry) || entry.filename() == config_name) fs::remove(entry, ignored);
    if (made_) fs::remove(folder_, ignored);
  }
  NewFolder(const NewFolder&) = delete;

  void done() { done_ = true; }

 private:
  fs::path folder_;
  bool made_ = false, done_ = false;
};

}  // namespace

std::string export_model(const Command& command) {
  const SavedModel model = open_model(command);
  const ModelConfig& shape = model.config.model;
  const WeightType type = command.dtype == "bfloat16" ? WeightType::bfloat16 : WeightType::float32;
  const Family family = family_of(shape);
  const ParameterLayout& layout = model.store.layout();
  const auto values = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), model.store.values());
  const std::vector<TensorToWrite> tensors = tensors_to_write(
      weight_parts(family, shape, layout), layout, std::span<const Master>(values.data(), values.size()));
  const fs::path output = command.output;
  NewFolder folder(output);
  bool has_tokenizer = false;
  for (const NamedText& file : tokenizer_files(model.tokenizer, shape.context)) {
    write_file_whole(output / file.name, file.text);
    has_tokenizer = has_tokenizer || file.name == "tokenizer.json";
  }
  if (!has_tokenizer)
    log_warning(
        "{}: AutoTokenizer does not read the model of SentencePiece, tokenizer.model, without a tokenizer.json",
        output.string());
  const Token end = model.tokenizer.end_of_text();
  write_file_whole(output / "generation_config.json", write_generation_config(end));
  const fs::path whole = fs::absolute(output).lexically_normal();
  const std::string name = (whole.has_filename() ? whole : whole.parent_path()).filename().string();
  write_file_whole(output / "README.md",
                   model_card(name, model.info, model.config, layout.parameters(), has_tokenizer));
  write_safetensors(output, tensors, type);
  write_file_whole(output / config_name, write_model_config(shape, end, type));
  folder.done();
  return fmt::format("step {}: {} as {} in {} -> {}\n", model.info.step,
                     bytes_text(layout.parameters() * (type == WeightType::bfloat16 ? 2 : 4)),
                     architecture_name(family), weight_type_name(type), output.string());
}

}  // namespace dekoder
