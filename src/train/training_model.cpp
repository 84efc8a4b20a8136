// SPDX-License-Identifier: Apache-2.0
#include "train/training_model.hpp"

#include <algorithm>

#include "io/run/checkpoint.hpp"
#include "model/model_summary.hpp"
#include "tensor/region.hpp"

namespace dekoder {

void PhaseClock::start(const ExecSpace& exec) {
  exec.fence("dekoder::phase_clock");
  last_ = std::chrono::steady_clock::now();
}

void PhaseClock::lap(const ExecSpace& exec, const std::string& phase) {
  exec.fence("dekoder::phase_clock");
  const auto now = std::chrono::steady_clock::now();
  const double elapsed = std::chrono::duration<double>(now - last_).count();
  last_ = now;
  const auto found =
      std::find_if(seconds_.begin(), seconds_.end(), [&](const auto& entry) { return entry.first == phase; });
  if (found == seconds_.end())
    seconds_.emplace_back(phase, elapsed);
  else
    found->second += elapsed;
}

TrainingModel::TrainingModel(const RunConfig& config)
    : config_(config),
      store_(decoder_parameters(config.model)),
      optimizer_(store_.layout()),
      decoder_(config.model, store_),
      arena_(dekoder::activation_bytes(config.model, config.micro_batch())),
      activations_(arena_, config.model, config.micro_batch()),
      inputs_("inputs", std::size_t(config.micro_batch()), std::size_t(config.model.context)),
      targets_("targets", std::size_t(config.micro_batch()), std::size_t(config.model.context)) {}

void TrainingModel::load(const ExecSpace& exec, HostTokenTensor2 inputs, HostTokenTensor2 targets) {
  const Region region("load");
  Kokkos::deep_copy(exec, inputs_, inputs);
  Kokkos::deep_copy(exec, targets_, targets);
  exec.fence("dekoder::load");
}

std::vector<NamedBuffer> TrainingModel::state() const {
  std::vector<NamedBuffer> buffers = optimizer_.state();
  buffers.insert(buffers.begin(), {parameter_group, store_.values()});
  return buffers;
}

double TrainingModel::accumulate_gradients(const ExecSpace& exec, const DropoutKey& dropout, Real grad_scale,
                                           PhaseClock* clock) {
  decoder_.forward(exec, inputs_, dropout, activations_);
  if (clock != nullptr) clock->lap(exec, "forward");
  const double loss_sum = decoder_.loss_backward(exec, targets_, grad_scale, activations_);
  if (clock != nullptr) clock->lap(exec, "head and loss");
  decoder_.backward(exec, inputs_, dropout, activations_);
  if (clock != nullptr) clock->lap(exec, "backward");
  return loss_sum;
}

}  // namespace dekoder
