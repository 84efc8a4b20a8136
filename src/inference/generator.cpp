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

/// The first `count` tokens in descending order of their logits, the lower index first of equals.
std::vector<Token> most_likely(std::span<const Real> logits, std::size_t count) {
  std::vector<Token> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto more_likely = [&](Token a, Token b) {
    return logits[std::size_t(a)] != logits[std::size_t(b)] ? logits[std::size_t(a)] > logits[std::size_t(b)]
                                                            : a < b;
  };
  const auto end = order.begin() + std::ptrdiff_t(std::min(count, order.size()));
  if (end == order.end())
    std::sort(order.begin(), end, more_likely);
  else
    std::partial_sort(order.begin(), end, order.end(), more_likely);
  order.erase(end, order.end());
  return order;
}

void require_finite(std::span<const Real> logits) {
  for (std::size_t token = 0; token < logits.size(); ++token)
    if (!std::isfinite(logits[token]))
      throw DivergedError(
          "no token can be drawn: the logit of token {} is not finite; the parameters diverged, or are too large "
          "for {}. Take an earlier checkpoint, or train again with a lower training.learning_rate",
          token, precision_name);
}

}  // namespace

std::vector<std::pair<Token, double>> shares_of_draw(std::span<const Real> logits, const Drawing& drawing) {
  require_finite(logits);
  if (drawing.temperature == 0) return {{most_likely(logits, 1).front(), 1.0}};
  std::vector<std::pair<Token, double>> shares;
  double total = 0;
  for (const Token token : most_likely(logits, drawing.top_k > 0 ? std::size_t(drawing.top_k) : logits.size())) {
    const double largest = logits[std::size_t(shares.empty() ? token : shares.front().first)];
    shares.emplace_back(token, std::exp((logits[std::size_t(token)] - largest) / drawing.temperature));
    total += shares.back().second;
  }
  double mass = 0;
  std::size_t kept = 0;
  while (kept < shares.size() && (kept == 0 || mass < drawing.top_p * total)) mass += shares[kept++].second;
  while (shares[kept - 1].second < drawing.min_p) --kept;  // the first one's share is 1
  shares.resize(kept);
  return shares;
}

Token sample_token(std::span<const Real> logits, const Drawing& drawing, double uniform) {
  const auto shares = shares_of_draw(logits, drawing);
  double mass = 0;
  for (const auto& [token, share] : shares) mass += share;
  double threshold = uniform * mass;
  for (const auto& [token, share] : shares) {
    threshold -= share;
    if (threshold < 0) return token;
  }
  return shares.back().first;
}

void penalize_repetition(const std::vector<bool>& seen, double penalty, std::span<Real> logits) {
  const Real factor = Real(penalty);
  for (std::size_t token = 0; token < logits.size(); ++token)
    if (seen[token]) logits[token] = logits[token] < 0 ? logits[token] * factor : logits[token] / factor;
}

DrawnToken ranked_token(std::span<const Real> logits, Token token, int count) {
  require_finite(logits);
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const Real logit : logits) total += std::exp(logit - largest);
  const double shift = largest + std::log(total);
  const auto of = [&](Token one) { return logits[std::size_t(one)] - shift; };
  DrawnToken drawn{token, of(token), {}};
  for (const Token one : most_likely(logits, std::size_t(count))) drawn.best.push_back({one, of(one)});
  return drawn;
}

Generator::Generator(const Decoder& decoder, int tokens, int sequences)
    : decoder_(decoder),
      tokens_(tokens),
      arena_(activation_bytes(of_context(decoder.model(), 1), sequences, ActivationUse::losses)),
      activations_(arena_, of_context(decoder.model(), 1), sequences, ActivationUse::losses),
      cache_(decoder.model(), sequences),
      last_("generator.token", std::size_t(sequences), 1),
      positions_("generator.positions", std::size_t(sequences)),
      logits_(Kokkos::create_mirror_view(activations_.logits)),
      texts_(std::size_t(sequences)) {
  if (tokens < 1 || tokens > decoder.model().vocabulary)
    throw std::logic_error(fmt::format("Generator: {} tokens of {}", tokens, decoder.model().vocabulary));
}

bool Generator::append(Text& text, Token token) const {
  std::vector<Token>& window = text.window;
  const bool full = window.size() == std::size_t(decoder_.model().context);
  if (full) window.erase(window.begin(), window.end() - std::ptrdiff_t(window.size() / 2));
  window.push_back(token);
  if (!text.seen.empty()) text.seen[std::size_t(token)] = true;
  return full;
}

void Generator::read(const ExecSpace& exec, const std::vector<Token>& window, int b) {
  const std::size_t S = window.size() - 1;
  if (S == 0) return;
  const ModelConfig shape = of_context(decoder_.model(), S);
  ActivationArena arena(activation_bytes(shape, 1, ActivationUse::cache));
  const DecoderActivations activations(arena, shape, 1, ActivationUse::cache);
  const TokenTensor2 on_device("generator.tokens", 1, S);
  const Kokkos::View<const Token**, Layout, Kokkos::HostSpace> here(window.data(), 1, S);
  Kokkos::deep_copy(exec, on_device, here);
  decoder_.prefill(exec, on_device, cache_.sequence(b), activations);
  exec.fence("dekoder::generate");  // before the activations go
}

Generator::Text Generator::begin(const ExecSpace& exec, std::span<const Token> prompt, std::size_t index,
                                 const Drawing& drawing, int b) {
  if (prompt.empty())
    throw ConfigError("the prompt is empty; expected at least one character; give one with --prompt");
  Text text{index, RandomStream(drawing.seed, site_of("sampling"), 0, index), 0, {}, {}};
  if (drawing.repetition_penalty != 1) text.seen.resize(std::size_t(decoder_.model().vocabulary));
  for (const Token token : prompt) append(text, token);
  read(exec, text.window, b);
  return text;
}

void Generator::forward(const ExecSpace& exec) {
  const auto last = Kokkos::create_mirror_view(last_);
  const auto positions = Kokkos::create_mirror_view(positions_);
  int least = decoder_.model().context, largest = 0;
  for (std::size_t b = 0; b < texts_.size(); ++b) {
    last(b, 0) = texts_[b] ? texts_[b]->window.back() : 0;
    positions(b) = texts_[b] ? int(texts_[b]->window.size()) - 1 : 0;
    least = std::min(least, positions(b));
    largest = std::max(largest, positions(b));
  }
  Kokkos::deep_copy(exec, last_, last);
  Kokkos::deep_copy(exec, positions_, positions);
  decoder_.forward_cached(exec, last_, FirstPositions(positions_, least, largest), cache_, activations_);
  decoder_.logits(exec, activations_, activations_.logits);
  Kokkos::deep_copy(exec, logits_, activations_.logits);
  exec.fence("dekoder::generate");
}

DrawnToken Generator::draw(Text& text, int b, const Drawing& drawing) {
  const std::vector<Real> logits(&logits_(b, 0), &logits_(b, 0) + tokens_);
  std::vector<Real> penalized;
  if (drawing.repetition_penalty != 1) {
    penalized = logits;
    penalize_repetition(text.seen, drawing.repetition_penalty, penalized);
  }
  const Token token = sample_token(penalized.empty() ? logits : penalized, drawing,
                                   text.draws.uniform(std::uint64_t(text.drawn++)));
  return drawing.log_probabilities < 0 ? DrawnToken{token, 0, {}}
                                       : ranked_token(logits, token, drawing.log_probabilities);
}

void Generator::generate(const ExecSpace& exec, std::span<const std::vector<Token>> prompts, const Drawing& drawing,
                         const std::function<Then(std::size_t, const DrawnToken&)>& emit) {
  const Region region("generate");
  std::ranges::fill(texts_, std::nullopt);
  for (std::size_t next = 0;;) {
    bool any = false;
    for (std::size_t b = 0; b < texts_.size(); ++b) {
      if (!texts_[b] && next < prompts.size()) {
        texts_[b] = begin(exec, prompts[next], next, drawing, int(b));
        ++next;
      }
      any = any || texts_[b];
    }
    if (!any) return;
    forward(exec);
    for (std::size_t b = 0; b < texts_.size(); ++b) {
      if (!texts_[b]) continue;
      Text& text = *texts_[b];
      const DrawnToken drawn = draw(text, int(b), drawing);
      const Then then = emit(text.prompt, drawn);
      if (then == Then::end_all) return;
      if (then == Then::end_text || text.drawn >= drawing.tokens)
        texts_[b].reset();
      else if (append(text, drawn.token))
        read(exec, text.window, int(b));
    }
  }
}

void Generator::generate(const ExecSpace& exec, std::span<const Token> prompt, const Drawing& drawing,
                         const std::function<bool(Token)>& emit) {
  const std::vector<std::vector<Token>> one = {{prompt.begin(), prompt.end()}};
  generate(exec, one, drawing,
           [&](std::size_t, const DrawnToken& drawn) { return emit(drawn.token) ? Then::go_on : Then::end_all; });
}

}  // namespace dekoder
