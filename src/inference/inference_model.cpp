// SPDX-License-Identifier: Apache-2.0
#include "inference/inference_model.hpp"

#include "base/log.hpp"
#include "config/run_config_yaml.hpp"
#include "config/setting_value.hpp"
#include "io/run/checkpoint_folder.hpp"
#include "io/run/run_directory.hpp"

namespace dekoder {

namespace fs = std::filesystem;

InferenceModel::InferenceModel(const fs::path& checkpoint)
    : info(read_checkpoint_info(checkpoint)),
      config(recorded_run_config(info.config_yaml, checkpoint.string())),
      tokenizer(Tokenizer::from_text(info.tokenizer, checkpoint.string())),
      store(run_parameters(config), Gradients::none),
      decoder(config.model, store) {
  read_checkpoint_parameters(checkpoint, store);
  // Asked for, or a checkpoint away from its run, whose precision nobody could know before it was opened.
  if (const std::string then = yaml_value(config.training.precision); then != precision_name)
    log_info("computes in {}; the run was trained in {}, which --precision {} takes", precision_name, then, then);
}

std::unique_ptr<InferenceModel> load_inference_model(const fs::path& run) {
  std::error_code ignored;  // what cannot be asked about is told by those who open it
  const fs::file_type kind = fs::status(run, ignored).type();
  if (kind != fs::file_type::directory && kind != fs::file_type::not_found)
    return std::make_unique<InferenceModel>(run);
  const fs::path folder = RunPaths{run}.checkpoints();
  if (fs::status(folder, ignored).type() == fs::file_type::not_found)
    throw DataError("{}: no such run directory or checkpoint; expected what `dekoder train --run` wrote",
                    run.string());
  std::unique_ptr<InferenceModel> model;
  newest_checkpoint(folder, [&](const fs::path& file) {
    model.reset();  // a damaged newer one: its memory first
    model = std::make_unique<InferenceModel>(file);
    return model->info;
  });
  return model;
}

}  // namespace dekoder
