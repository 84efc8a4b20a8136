// SPDX-License-Identifier: Apache-2.0
#include "train/evaluator.hpp"

#include <cmath>
#include <numbers>

#include "tensor/region.hpp"

namespace dekoder {

Evaluator::Evaluator(const TokenDataset& data, const EvaluationConfig& config, const Decoder& decoder,
                     const DecoderActivations& activations)
    : windows_(data, decoder.model().context, config.tokens),
      decoder_(decoder),
      activations_(activations),
      host_inputs_("validation.host_inputs", activations.sequences(), std::size_t(decoder.model().context)),
      host_targets_("validation.host_targets", host_inputs_.extent(0), host_inputs_.extent(1)),
      inputs_("validation.inputs", host_inputs_.extent(0), host_inputs_.extent(1)),
      targets_("validation.targets", host_inputs_.extent(0), host_inputs_.extent(1)) {}

std::optional<Validation> Evaluator::evaluate(const ExecSpace& exec, const std::function<bool()>& stop) const {
  const Region region("evaluate");
  Validation result;
  double nats = 0;
  const auto losses = Kokkos::create_mirror_view(activations_.losses);
  for (std::uint64_t first = 0; first < windows_.windows(); first += host_inputs_.extent(0)) {
    if (stop()) return std::nullopt;
    const std::uint64_t counted = windows_.read(first, host_inputs_, host_targets_);
    Kokkos::deep_copy(exec, inputs_, host_inputs_);
    Kokkos::deep_copy(exec, targets_, host_targets_);
    decoder_.forward(exec, inputs_, DropoutKey{}, activations_);
    decoder_.losses(exec, targets_, activations_);
    Kokkos::deep_copy(exec, losses, activations_.losses);
    exec.fence("dekoder::evaluate");
    for (std::size_t i = 0; i < counted; ++i) nats += double(losses(i));
    result.tokens += counted;
  }
  result.loss = nats / double(result.tokens);
  result.bits_per_byte = nats / double(windows_.bytes()) / std::numbers::ln2;
  return result;
}

}  // namespace dekoder
