// SPDX-License-Identifier: Apache-2.0
#include "inference/generator.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/model_summary.hpp"
#include "tensor/region.hpp"

namespace dekoder {

namespace {

ModelConfig one_token(ModelConfig model) {
  model.context = 1;
  return model;
}

}  // namespace

int sample_token(std::span<const Real> logits, const SamplingConfig& sampling, double uniform) {
  for (std::size_t token = 0; token < logits.size(); ++token)
    if (!std::isfinite(logits[token]))
      throw DivergedError(
          "no token can be drawn: the logit of token {} is not finite; the parameters diverged, or are too large "
          "for {}. Take an earlier checkpoint, or train again with a lower training.learning_rate",
          token, real_name);
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
      arena_(activation_bytes(one_token(decoder.model()), 1, ActivationUse::losses)),
      activations_(arena_, one_token(decoder.model()), 1, ActivationUse::losses),
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

void Generator::restart_if_full(const ExecSpace& exec) {
  if (cache_.position < decoder_.model().context) return;
  const std::vector<Token> newer(window_.begin() + std::ptrdiff_t(window_.size() - window_.size() / 2),
                                 window_.end());
  cache_.position = 0;
  window_.clear();
  for (Token token : newer) feed(exec, token);
}

void Generator::generate(const ExecSpace& exec, std::span<const Token> prompt, const SamplingConfig& sampling,
                         const std::function<bool(Token)>& emit) {
  const Region region("generate");
  if (prompt.empty())
    throw ConfigError("the prompt is empty; expected at least one character; give one with --prompt");
  cache_.position = 0;
  window_.clear();
  for (Token token : prompt) {
    restart_if_full(exec);
    feed(exec, token);
  }
  const RandomStream draws(sampling.seed, site_of("sampling"));
  const StoredTensor2& logits = activations_.logits;  // (1,V)
  const auto host_logits = Kokkos::create_mirror_view(logits);
  for (int i = 0; i < sampling.tokens; ++i) {
    decoder_.logits(exec, activations_, logits);
    Kokkos::deep_copy(exec, host_logits, logits);
    exec.fence("dekoder::generate");
    const std::span<const Real> row(host_logits.data(), std::size_t(tokens_));
    const Token next = sample_token(row, sampling, draws.uniform(std::uint64_t(i)));
    if (!emit(next) || i + 1 == sampling.tokens) return;
    restart_if_full(exec);
    feed(exec, next);
  }
}

}  // namespace dekoder
