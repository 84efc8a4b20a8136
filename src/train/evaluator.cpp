// SPDX-License-Identifier: Apache-2.0
#include "train/evaluator.hpp"

#include <cmath>
#include <numbers>
#include <numeric>
#include <vector>

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

std::optional<Validation> Evaluator::evaluate(const ExecSpace& exec, const std::function<bool()>& stop,
                                              const Communicator& ranks) const {
  const Region region("evaluate");
  const auto losses = Kokkos::create_mirror_view(activations_.losses);
  const std::size_t B = host_inputs_.extent(0), passes = (windows_.windows() + B - 1) / B,
                    P = std::size_t(ranks.size()), r = std::size_t(ranks.rank());
  std::vector<double> nats(passes, 0);
  bool stopped = false;
  for (std::size_t pass = passes * r / P; pass < passes * (r + 1) / P; ++pass) {
    if ((stopped = stop())) break;
    const std::uint64_t counted = windows_.read(pass * B, host_inputs_, host_targets_);
    Kokkos::deep_copy(exec, inputs_, host_inputs_);
    Kokkos::deep_copy(exec, targets_, host_targets_);
    decoder_.forward(exec, inputs_, DropoutKey{}, activations_);
    decoder_.losses(exec, targets_, activations_);
    Kokkos::deep_copy(exec, losses, activations_.losses);
    exec.fence("dekoder::evaluate");
    for (std::size_t i = 0; i < counted; ++i) nats[pass] += double(losses(i));
  }
  if (ranks.max(stopped ? 1 : 0) != 0) return std::nullopt;
  ranks.unite(nats);
  const double total = std::accumulate(nats.begin(), nats.end(), 0.0);
  return Validation{total / double(windows_.tokens()), total / double(windows_.bytes()) / std::numbers::ln2,
                    windows_.tokens()};
}

}  // namespace dekoder
