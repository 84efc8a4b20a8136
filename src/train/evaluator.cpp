// SPDX-License-Identifier: Apache-2.0
#include "train/evaluator.hpp"

#include <algorithm>
#include <numbers>
#include <utility>

#include "io/files/sha256.hpp"
#include "tensor/region.hpp"

namespace dekoder {

Evaluator::Evaluator(const DataMixture& data, const EvaluationConfig& config, const Decoder& decoder,
                     const DecoderActivations& activations)
    : decoder_(decoder),
      activations_(activations),
      host_inputs_("validation.host_inputs", activations.sequences(), std::size_t(decoder.model().context)),
      host_targets_("validation.host_targets", host_inputs_.extent(0), host_inputs_.extent(1)),
      inputs_("validation.inputs", host_inputs_.extent(0), host_inputs_.extent(1)),
      targets_("validation.targets", host_inputs_.extent(0), host_inputs_.extent(1)) {
  const int context = decoder.model().context;
  std::string all;
  for (const TokenDataset& source : data.sources()) windows_.emplace_back(source, context, config.tokens);
  if (data.single()) {
    shares_ = {1};
    digest_ = windows_[0].digest();
    return;
  }
  const MixtureOrder order = training_order(data, 0, context);
  for (std::size_t i = 0; i < windows_.size(); ++i) {
    shares_.push_back(order.share(i));
    all += fmt::format("{} {}\n", windows_[i].digest(), shares_[i]);
  }
  Sha256 hash;
  hash.update(std::as_bytes(std::span(all)));
  digest_ = hash.finish();
}

std::uint64_t Evaluator::tokens() const {
  std::uint64_t sum = 0;
  for (const ValidationWindows& windows : windows_) sum += windows.tokens();
  return sum;
}

std::optional<MixtureValidation> Evaluator::evaluate(const ExecSpace& exec, const std::function<bool()>& stop,
                                                     const Communicator& ranks) const {
  const Region region("evaluate");
  const auto losses = Kokkos::create_mirror_view(activations_.losses);
  const std::size_t B = host_inputs_.extent(0), P = std::size_t(ranks.size()), r = std::size_t(ranks.rank());
  std::vector<std::pair<std::size_t, std::size_t>> of_pass;  // source, first window
  for (std::size_t source = 0; source < windows_.size(); ++source)
    for (std::uint64_t first = 0; first < windows_[source].windows(); first += B)
      of_pass.emplace_back(source, first);
  const std::size_t passes = of_pass.size();
  std::vector<double> nats(passes, 0);
  bool stopped = false;
  for (std::size_t pass = passes * r / P; pass < passes * (r + 1) / P; ++pass) {
    if ((stopped = stop())) break;
    const auto [source, first] = of_pass[pass];
    const std::uint64_t counted = windows_[source].read(first, host_inputs_, host_targets_);
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
  std::vector<double> totals(windows_.size(), 0);
  for (std::size_t pass = 0; pass < passes; ++pass) totals[of_pass[pass].first] += nats[pass];
  return together(totals);
}

MixtureValidation Evaluator::together(const std::vector<double>& nats) const {
  MixtureValidation validation;
  double most = 0;  // a source's tokens count by share / tokens, scaled so that those of a single one count once
  for (std::size_t i = 0; i < windows_.size(); ++i)
    if (windows_[i].tokens() > 0) most = std::max(most, shares_[i] / double(windows_[i].tokens()));
  double all_nats = 0, all_tokens = 0, all_bytes = 0;
  for (std::size_t i = 0; i < windows_.size(); ++i) {
    const double tokens = double(windows_[i].tokens()), bytes = double(windows_[i].bytes());
    Validation& source = validation.sources.emplace_back();
    if (windows_[i].tokens() == 0) continue;
    source = {nats[i] / tokens, nats[i] / bytes / std::numbers::ln2, windows_[i].tokens()};
    const double weight = shares_[i] / tokens / most;
    all_nats += weight * nats[i];
    all_tokens += weight * tokens;
    all_bytes += weight * bytes;
  }
  validation.all = {all_nats / all_tokens, all_nats / all_bytes / std::numbers::ln2, tokens()};
  return validation;
}

}  // namespace dekoder
