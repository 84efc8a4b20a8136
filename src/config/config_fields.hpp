// SPDX-License-Identifier: Apache-2.0
// The one list of configuration keys: it serves reading, writing, checking and "did you mean".
#pragma once

#include <array>
#include <limits>
#include <string_view>

#include "config/run_config.hpp"

namespace dekoder {

/// Allowed values of a number, ends included unless `above` says that the low end is not.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool above = false;    ///< low itself is not allowed
  bool below = false;    ///< high itself is not allowed
  bool as_float = true;  ///< of a double: holds for the nearest float too, which is what kernels take
};
constexpr Range at_least(double low) {
  return {.low = low};
}
constexpr Range positive() {
  return {.low = 0, .above = true};
}
constexpr Range between(double low, double high) {
  return {.low = low, .high = high};
}
constexpr Range below(double low, double high) {
  return {.low = low, .high = high, .below = true};
}

/// Names of the values of an enum, in their order.
constexpr std::array<std::string_view, 4> names_of(Positions) {
  return {"none", "sinusoidal", "learned", "rotary"};
}
constexpr std::array<std::string_view, 2> names_of(NormPlacement) {
  return {"pre", "post"};
}
constexpr std::array<std::string_view, 2> names_of(NormKind) {
  return {"layer", "rms"};
}
constexpr std::array<std::string_view, 5> names_of(Activation) {
  return {"relu", "gelu_tanh", "gelu_erf", "silu", "relu_squared"};
}
constexpr std::array<std::string_view, 2> names_of(Initialisation) {
  return {"gpt2", "torch_linear"};
}
constexpr std::array<std::string_view, 5> names_of(Schedule) {
  return {"constant", "linear", "cosine", "wsd", "inverse_sqrt"};
}
constexpr std::array<std::string_view, 2> names_of(OptimizerKind) {
  return {"adamw", "muon"};
}
constexpr std::array<std::string_view, 2> names_of(OnNonfinite) {
  return {"stop", "skip"};
}
constexpr std::array<std::string_view, 2> names_of(Precision) {
  return {"float", "bf16"};
}
constexpr std::array<std::string_view, 2> names_of(Residual) {
  return {"stored", "float"};
}
constexpr std::array<std::string_view, 2> names_of(Recompute) {
  return {"none", "block"};
}

/// visit(key, member, range) for every setting; the range of texts and enums is not looked at, that of a list holds
/// for each of its elements.
template <class Config, class Visitor>
void visit_fields(Config& config, Visitor&& visit) {
  auto& m = config.model;
  visit("model.layers", m.layers, between(1, 9999));
  visit("model.heads", m.heads, at_least(1));
  visit("model.key_value_heads", m.key_value_heads, at_least(0));
  visit("model.head_size", m.head_size, at_least(0));
  visit("model.channels", m.channels, at_least(1));
  visit("model.feed_forward", m.feed_forward, at_least(1));
  visit("model.context", m.context, at_least(1));
  visit("model.vocabulary", m.vocabulary, at_least(0));
  visit("model.vocabulary_multiple", m.vocabulary_multiple, between(1, 65536));
  visit("model.positions", m.positions, Range{});
  visit("model.rotary_base", m.rotary_base, positive());
  visit("model.rotary_fraction", m.rotary_fraction, Range{.low = 0, .high = 1, .above = true});
  visit("model.rotary_factor", m.rotary_factor, positive());
  visit("model.rotary_low_frequency", m.rotary_low_frequency, positive());
  visit("model.rotary_high_frequency", m.rotary_high_frequency, positive());
  visit("model.rotary_original_context", m.rotary_original_context, at_least(1));
  visit("model.norm", m.norm, Range{});
  visit("model.norm_kind", m.norm_kind, Range{});
  visit("model.norm_epsilon", m.norm_epsilon, positive());
  visit("model.sliding_window", m.sliding_window, at_least(0));
  visit("model.qk_norm", m.qk_norm, Range{});
  visit("model.activation", m.activation, Range{});
  visit("model.gated", m.gated, Range{});
  visit("model.bias", m.bias, Range{});
  visit("model.tied_head", m.tied_head, Range{});
  visit("model.logit_soft_cap", m.logit_soft_cap, at_least(0));
  visit("model.dropout", m.dropout, below(0, 1));
  visit("model.initialisation", m.initialisation, Range{});
  visit("data.tokens", config.data.tokens, Range{});
  visit("data.weights", config.data.weights, positive());
  auto& t = config.training;
  visit("training.seed", t.seed, at_least(0));
  visit("training.steps", t.steps, at_least(1));
  visit("training.batch", t.batch, at_least(1));
  visit("training.batch_warmup", t.batch_warmup, at_least(1));
  visit("training.batch_warmup_steps", t.batch_warmup_steps, at_least(0));
  visit("training.micro_batch", t.micro_batch, at_least(0));
  visit("training.learning_rate", t.learning_rate, positive());
  visit("training.final_learning_rate", t.final_learning_rate, at_least(0));
  visit("training.schedule", t.schedule, Range{});
  visit("training.warmup_steps", t.warmup_steps, at_least(0));
  visit("training.decay_fraction", t.decay_fraction, between(0, 1));
  visit("training.optimizer", t.optimizer, Range{});
  visit("training.momentum", t.momentum, below(0, 1));
  visit("training.beta1", t.beta1, below(0, 1));
  visit("training.beta2", t.beta2, below(0, 1));
  visit("training.epsilon", t.epsilon, positive());
  visit("training.weight_decay", t.weight_decay, at_least(0));
  visit("training.average", t.average, below(0, 1));
  visit("training.clip_norm", t.clip_norm, at_least(0));
  visit("training.precision", t.precision, Range{});
  visit("training.residual", m.residual, Range{});
  visit("training.recompute", m.recompute, Range{});
  visit("training.z_loss", m.z_loss, at_least(0));
  visit("training.on_nonfinite", t.on_nonfinite, Range{});
  visit("training.skip_at_most", t.skip_at_most, at_least(0));
  visit("evaluation.every", config.evaluation.every, at_least(0));
  visit("evaluation.tokens", config.evaluation.tokens, at_least(0));
  auto& s = config.sampling;
  visit("sampling.every", s.every, at_least(0));
  visit("sampling.prompt", s.prompt, Range{});
  visit("sampling.tokens", s.tokens, at_least(1));
  visit("sampling.temperature", s.temperature, at_least(0));
  visit("sampling.top_k", s.top_k, at_least(0));
  visit("sampling.top_p", s.top_p, Range{.low = 0, .high = 1, .above = true});
  visit("sampling.seed", s.seed, at_least(0));
  visit("checkpoint.every", config.checkpoint.every, at_least(0));
  visit("checkpoint.keep", config.checkpoint.keep, at_least(1));
  auto& a = config.attention;
  visit("attention.texts", a.texts, Range{});
  visit("attention.windows", a.windows, at_least(0));
  visit("attention.window_tokens", a.window_tokens, at_least(0));
  visit("attention.layers", a.layers, at_least(0));
  visit("attention.heads", a.heads, at_least(0));
  visit("attention.every", a.every, at_least(0));
  visit("attention.steps", a.steps, at_least(0));
  visit("attention.max_megabytes", a.max_megabytes, at_least(1));
}

}  // namespace dekoder
