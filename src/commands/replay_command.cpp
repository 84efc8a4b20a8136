// SPDX-License-Identifier: Apache-2.0
#include "commands/replay_command.hpp"

#include <cmath>
#include <numeric>

#include "commands/text_table.hpp"
#include "config/config_fields.hpp"
#include "config/run_config_yaml.hpp"
#include "config/setting_value.hpp"
#include "kernels/gemm.hpp"
#include "train/step_trace.hpp"

namespace dekoder {

namespace {

RunConfig config_of(const BlackBox& box, const std::string& file) {
  RunConfig config = recorded_run_config(box.config_yaml, file);
  if (const std::string then = yaml_value(config.training.precision); then != precision_name)
    throw ConfigError("{}: the step was computed in {}, and this is {}; add --precision {}", file, then,
                      precision_name, then);
  const long step = std::max<long>(box.step, 1) - 1, leaves = leaves_of_step(config, step);
  const auto samples = std::size_t(config.batch_of(step)), tokens = samples * std::size_t(config.model.context);
  if (box.step < 1 || box.ranks < 1 || box.inputs.size() != tokens || box.targets.size() != tokens ||
      box.sample_indices.size() != samples || box.losses.size() != std::size_t(leaves) || box.ranks > leaves)
    throw DataError(
        "{}: holds {} inputs, {} targets, {} samples and {} losses of {} ranks; expected what its configuration "
        "says: {} tokens of {} samples in {} micro-batches",
        file, box.inputs.size(), box.targets.size(), box.sample_indices.size(), box.losses.size(), box.ranks,
        tokens, samples, leaves);
  for (const auto* tokens_of : {&box.inputs, &box.targets})
    for (const std::int32_t token : *tokens_of)
      if (token < 0 || token >= config.model.vocabulary)
        throw DataError("{}: holds token {}; expected less than model.vocabulary, {}", file, token,
                        config.model.vocabulary);
  return config;
}

/// The step as training computes it, on one rank: what is wrong with it, or "".
std::string compute_step(const ExecSpace& exec, TrainingModel& model, const BlackBox& box,
                         std::vector<double>& losses) {
  const long step = box.step - 1;
  const double tokens = double(model.config().batch_of(step)) * model.config().model.context;
  model.prepare_step(step);
  for_each_micro_batch(exec, model, box, [&](long, const DropoutKey& dropout) {
    losses.push_back(model.leaf_gradients(exec, dropout, Real(1 / tokens)) / tokens);
    return true;
  });
  const double loss = std::accumulate(losses.begin(), losses.end(), 0.0);
  if (!std::isfinite(loss)) return loss_is_not_finite(box.step, loss);
  try {
    model.update(exec, box.step - 1);
  } catch (const DivergedError& error) {
    return error.what();
  }
  return "";
}

std::string number(double value, int digits) {
  return std::isnan(value) ? "nan" : fmt::format("{:.{}g}", value, digits);
}

std::string losses_text(const BlackBox& box, const std::vector<double>& losses) {
  std::vector<std::vector<std::string>> rows = {{"micro-batch", "loss then", "loss here", ""}};
  const double parts = double(losses.size());
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const std::string then = number(box.losses[i] * parts, 17), here = number(losses[i] * parts, 17);
    rows.push_back({std::to_string(i), then, here, then == here ? "same" : "differs"});
  }
  return text_table(rows);
}

/// The tensors of the bad micro-batch, or the bad parameters, up to three behind the first bad one.
std::string tensors_text(const std::vector<TensorHealth>& tensors) {
  std::vector<std::vector<std::string>> rows = {{"tensor", "operation", "NaN", "Inf", "elements", "largest"}};
  int behind = -1;
  for (const TensorHealth& tensor : tensors) {
    if (behind >= 0 || tensor.first >= 0) ++behind;
    if (behind > 3) break;
    if (tensor.micro < 0 && tensor.first < 0) continue;
    rows.push_back({tensor.name, tensor.operation, std::to_string(tensor.nans), std::to_string(tensor.infinities),
                    std::to_string(tensor.elements), number(tensor.largest, 3)});
  }
  return text_table(rows);
}

}  // namespace

Replay replay_step(const Command& command) {
  BlackBox box = read_black_box(command.run);
  const RunConfig config = config_of(box, command.run);
  const ExecSpace exec;
  TrainingModel model(config);
  read_black_box_parameters(command.run, model.store());
  const std::string here = program_name();
  std::string text = fmt::format("run {}, {} rank{}: {}\n{}{}; samples {} to {}\n", box.run_id, box.ranks,
                                 box.ranks == 1 ? "" : "s", box.reason, box.writer,
                                 here == box.writer ? "" : " (here: " + here + ")", box.sample_indices.front(),
                                 box.sample_indices.back());
  box.tensors = trace_step(exec, model, box);
  std::vector<double> losses;
  const std::string wrong = compute_step(exec, model, box, losses);
  text += losses_text(box, losses);
  if (wrong.empty())
    return {text + "not reproduced: here the step is finite; what computed it then may have failed\n",
            ExitCode::finished};
  return {text + tensors_text(box.tensors) + fmt::format("reproduced: {}\n{}\n", wrong, first_bad_tensor_text(box)),
          ExitCode::diverged};
}

}  // namespace dekoder
