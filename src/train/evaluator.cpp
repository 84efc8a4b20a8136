// SPDX-License-Identifier: Apache-2.0
#include "train/evaluator.hpp"

#include <cmath>
#include <numbers>

namespace dekoder {

Evaluator::Evaluator(const TokenDataset& data, const RunConfig& config)
    : windows_(data, config.model.context, config.evaluation.tokens),
      inputs_("validation.inputs", std::size_t(config.micro_batch()), std::size_t(config.model.context)),
      targets_("validation.targets", std::size_t(config.micro_batch()), std::size_t(config.model.context)) {}

std::optional<Validation> Evaluator::evaluate(const ExecSpace& exec, TrainingModel& model,
                                              const std::function<bool()>& stop) const {
  Validation result;
  double nats = 0;
  for (std::uint64_t first = 0; first < windows_.windows(); first += inputs_.extent(0)) {
    if (stop()) return std::nullopt;
    const std::uint64_t counted = windows_.read(first, inputs_, targets_);
    model.load(exec, inputs_, targets_);
    const auto& losses = model.evaluate(exec);
    for (std::size_t i = 0; i < counted; ++i) nats += double(losses(i));
    result.tokens += counted;
  }
  result.loss = nats / double(result.tokens);
  result.bits_per_byte = nats / double(windows_.bytes()) / std::numbers::ln2;
  return result;
}

}  // namespace dekoder
