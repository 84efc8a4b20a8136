// SPDX-License-Identifier: Apache-2.0
#include "commands/export_command.hpp"

#include <algorithm>
#include <filesystem>

#include "base/decimal.hpp"
#include "base/log.hpp"
#include "commands/command_files.hpp"
#include "config/run_config_yaml.hpp"
#include "huggingface/gguf_model.hpp"
#include "huggingface/gguf_tokenizer.hpp"
#include "huggingface/model_card.hpp"
#include "huggingface/model_family.hpp"
#include "huggingface/tokenizer_folder.hpp"
#include "huggingface/weight_parts.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/input_file.hpp"
#include "io/run/checkpoint_folder.hpp"
#include "io/run/run_directory.hpp"
#include "io/safetensors/safetensors_writer.hpp"
#include "layers/self_attention.hpp"
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

struct Written {
  std::vector<TensorToWrite> tensors;
  const char* architecture;
};

/// A folder that transformers reads.
Written write_folder(const fs::path& output, const SavedModel& model, std::span<const Master> values,
                     WeightType type) {
  const ModelConfig& shape = model.config.model;
  const Family family = family_of(shape);
  const ParameterLayout& layout = model.store.layout();
  std::vector<TensorToWrite> tensors = tensors_to_write(weight_parts(family, shape, layout), layout, values);
  for (TensorToWrite& tensor : tensors) tensor.type = type;
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
                   model_card(name, model.info, model.config, layout.parameters() - padding_parameters(shape),
                              model.tokenizer, has_tokenizer));
  write_safetensors(output, tensors);
  write_file_whole(output / config_name, write_model_config(shape, end, type));
  folder.done();
  return {std::move(tensors), architecture_name(family)};
}

/// A file of an earlier export, say.
void require_gguf(const fs::path& file) {
  std::string front(4, '\0');
  if (InputFile(file, "GGUF file").read(front) != front.size() || front != "GGUF")
    throw DataError("{}: is no GGUF file", file.string());
}

/// One file that llama.cpp reads.
Written write_gguf_file(const fs::path& output, const SavedModel& model, std::span<const Master> values,
                        WeightType type) {
  check_output(output, require_gguf);
  const ModelConfig& shape = model.config.model;
  std::vector<TensorToWrite> tensors =
      gguf_tensors(shape, model.store.layout(), values, type, [&](int i) { return rotary_frequency(shape, i); });
  GgufMetadata metadata = gguf_metadata(output.stem().string(), shape, type);
  const GgufTokenizer tokenizer = gguf_tokenizer(model.tokenizer, shape.vocabulary);
  metadata.insert(metadata.end(), tokenizer.metadata.begin(), tokenizer.metadata.end());
  write_gguf(output, metadata, tensors);
  const auto is_float16 = [](const TensorToWrite& tensor) { return tensor.type == WeightType::float16; };
  if (const auto count = std::ranges::count_if(tensors, is_float16); type == WeightType::q8_0 && count > 0)
    log_info("{}: {} tensors are float16, as their rows are no multiple of {} elements, the blocks of q8_0",
             output.string(), count, q8_0_block);
  if (!tokenizer.warning.empty()) log_warning("{} {}", output.string(), tokenizer.warning);
  return {std::move(tensors), gguf_architecture(shape)};
}

}  // namespace

std::string export_model(const Command& command) {
  const SavedModel model = open_model(command);
  const WeightType type = weight_type_of(command.dtype);
  const auto copy = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), model.store.values());
  const std::span<const Master> values(copy.data(), copy.size());
  const fs::path output = command.output;
  const auto [tensors, architecture] =
      is_gguf(command) ? write_gguf_file(output, model, values, type) : write_folder(output, model, values, type);
  std::uint64_t bytes = 0;
  for (const TensorToWrite& tensor : tensors) bytes += tensor.bytes();
  return fmt::format("step {}: {} as {} in {} -> {}\n", model.info.step, bytes_text(bytes), architecture,
                     weight_type_name(type), output.string());
}

}  // namespace dekoder
