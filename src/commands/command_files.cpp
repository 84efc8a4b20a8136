// SPDX-License-Identifier: Apache-2.0
#include "commands/command_files.hpp"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.hpp"
#include "io/files/durable_file.hpp"
#include "io/run/checkpoint_folder.hpp"
#include "io/run/run_directory.hpp"
#include "train/restart.hpp"

namespace dekoder {

namespace fs = std::filesystem;

DataMixture open_tokens(const RunConfig& config) {
  if (config.data.tokens.empty())
    throw ConfigError(
        "data.tokens is not set; expected a token file: make one with `dekoder prepare TEXT -o FILE` and name it");
  const std::vector<fs::path> files(config.data.tokens.begin(), config.data.tokens.end());
  std::error_code ignored;
  for (const fs::path& file : files)
    if (file.is_relative() && fs::symlink_status(file, ignored).type() == fs::file_type::not_found)
      throw DataError(
          "{}: no such token file; data.tokens is relative to the current folder, {}; make it with "
          "`dekoder prepare TEXT -o FILE`, go to the folder that it is meant from, or give the whole path (--set "
          "data.tokens=PATH; eval, predictions: --tokens-file PATH)",
          file.string(), fs::current_path(ignored).string());
  return DataMixture(files, config.data.weights);
}

DataMixture open_held_out_tokens(const InferenceModel& model, const Command& command) {
  RunConfig config = model.config;
  if (!command.tokens_file.empty()) config.data = {{command.tokens_file}, {}};
  DataMixture data = open_tokens(config);
  if (command.tokens_file.empty())
    require_own_text(model.info, data, command.run,
                     "restore the run's own file, or name another text with --tokens-file");
  else if (data.tokenizer().to_text() != model.info.tokenizer)
    throw DataError(
        "{}: has another tokenizer or vocabulary than the checkpoint; expected tokens made in the same way",
        data.name());
  if (std::none_of(data.sources().begin(), data.sources().end(),
                   [](const TokenDataset& source) { return source.validation_tokens() > 0; }))
    throw DataError("{}: has no held-out part; prepare it with a larger --validation-fraction", data.name());
  return data;
}

fs::path chosen_checkpoint(const Command& command) {
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

void check_output(const fs::path& output, const std::function<void(const fs::path&)>& require_own) {
  const fs::path target = output_target(output);
  if (const fs::path folder = target.parent_path();
      ::access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK) != 0)
    throw DataError("{}: its folder cannot be written: {}; name another file with -o", output.string(),
                    std::strerror(errno));
  if (!fs::exists(target)) return;
  try {
    require_own(target);
  } catch (const DataError& error) {
    throw DataError("{}; it is left alone: name another file with -o", error.what());
  }
}

}  // namespace dekoder
