// SPDX-License-Identifier: Apache-2.0
#include "inference/generator.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/model_summary.hpp"
#include "tensor/region.hpp"

namespace dekoder {

namespace {

ModelConfig of_context(ModelConfig model, std::size_t tokens) {
  model.context = int(tokens);
  return model;
}

}  // namespace

int sample_token(std::span<const Real> logits, const SamplingConfig& sampling, double uniform) {
  for (std::size_t token = 0; token < logits.size(); ++token)
    if (!std::isfinite(logits[token]))
      throw DivergedError(
          "no token can be drawn: the logit of token {} is not finite; the parameters diverged, or are too large "
          "for {}. Take an earlier checkpoint, or train again with a lower training.learning_rate",
          token, precision_name);
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto more_likely = [&](int a, int b) {
    return logits[std::size_t(a)] != logits[std::size_t(b)] ? logits[std::size_t(a)] > logits[std::size_t(b)]
                                                            : a < b;
  };
  if (sampling.temperature == 0) return *std::min_element(order.begin(), order.end(), more_likely);
  std::sort(order.begin(), order.end(), more_likely);
  if (sampling.top_k > 0 && std::size_t(sampling.top_k) < order.size()) order.resize(std::size_t(sampling.top_k));

  std::vector<double> weight(order.size());
  const double largest = logits[std::size_t(order.front())];
  double total = 0;
  for (std::size_t i = 0; i < order.size(); ++i)
    total += weight[i] = std::exp((logits[std::size_t(order[i])] - largest) / sampling.temperature);
  double mass = 0;
  std::size_t kept = 0;
  while (kept < order.size() && (kept == 0 || mass < sampling.top_p * total)) mass += weight[kept++];

  double threshold = uniform * mass;
  for (std::size_t i = 0; i < kept; ++i) {
    threshold -= weight[i];
    if (threshold < 0) return order[i];
  }
  return order[kept - 1];
}

Generator::Generator(const Decoder& decoder, int tokens)
    : decoder_(decoder),
      tokens_(tokens),
      arena_(activation_bytes(of_context(decoder.model(), 1), 1, ActivationUse::losses)),
      activations_(arena_, of_context(decoder.model(), 1), 1, ActivationUse::losses),
      cache_(decoder.model(), 1),
      token_("generator.token", 1, 1) {
  if (tokens < 1 || tokens > decoder.model().vocabulary)
    throw std::logic_error(fmt::format("Generator: {} tokens of {}", tokens, decoder.model().vocabulary));
  window_.reserve(std::size_t(decoder.model().context));
}

void Generator::feed(const ExecSpace& exec, Token token) {
  Kokkos::deep_copy(exec, token_, token);
  decoder_.forward_cached(exec, token_, cache_, activations_);
  window_.push_back(token);
}

std::vector<Token> Generator::newer_half() const {
  return {window_.end() - std::ptrdiff_t(window_.size() / 2), window_.end()};
}

void Generator::read(const ExecSpace& exec, const std::vector<Token>& tokens) {
  window_ = tokens;
  cache_.position = 0;
  if (tokens.empty()) return;
  const ModelConfig shape = of_context(decoder_.model(), tokens.size());
  ActivationArena arena(activation_bytes(shape, 1, ActivationUse::cache));
  const DecoderActivations activations(arena, shape, 1, ActivationUse::cache);
  const TokenTensor2 on_device("generator.tokens", 1, tokens.size());
  const Kokkos::View<const Token**, Layout, Kokkos::HostSpace> here(tokens.data(), 1, tokens.size());
  Kokkos::deep_copy(exec, on_device, here);
  decoder_.prefill(exec, on_device, cache_, activations);
  exec.fence("dekoder::generate");  // before the activations go
}

void Generator::generate(const ExecSpace& exec, std::span<const Token> prompt, const SamplingConfig& sampling,
                         const std::function<bool(Token)>& emit) {
  const Region region("generate");
  if (prompt.empty())
    throw ConfigError("the prompt is empty; expected at least one character; give one with --prompt");
  const std::size_t T = std::size_t(decoder_.model().context);
  window_.clear();
  for (Token token : prompt) {
    if (window_.size() == T) window_ = newer_half();
    window_.push_back(token);
  }
  const Token last = window_.back();
  read(exec, {window_.begin(), window_.end() - 1});
  feed(exec, last);
  const RandomStream draws(sampling.seed, site_of("sampling"));
  const StoredTensor2& logits = activations_.logits;  // (1,V)
  const auto host_logits = Kokkos::create_mirror_view(logits);
  std::vector<Real> row(std::size_t(tokens_), Real(0));
  for (int i = 0; i < sampling.tokens; ++i) {
    decoder_.logits(exec, activations_, logits);
    Kokkos::deep_copy(exec, host_logits, logits);
    exec.fence("dekoder::generate");
    std::copy_n(host_logits.data(), tokens_, row.begin());
    const Token next = sample_token(row, sampling, draws.uniform(std::uint64_t(i)));
    if (!emit(next) || i + 1 == sampling.tokens) return;
    if (window_.size() == T) read(exec, newer_half());
    feed(exec, next);
  }
}

}  // namespace dekoder
