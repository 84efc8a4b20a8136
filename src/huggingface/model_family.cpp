// SPDX-License-Identifier: Apache-2.0
#include "huggingface/model_family.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/error.hpp"
#include "base/json_node.hpp"
#include "config/config_fields.hpp"
#include "config/setting_value.hpp"

namespace dekoder {

namespace {

using Json = nlohmann::ordered_json;

template <class Enum>
std::string name_of(Enum value) {
  return std::string(names_of(value)[std::size_t(value)]);
}

// ---- activations

struct ActivationName {
  Activation activation;
  const char* name;
};
/// Names of transformers, of which the first one is written.
constexpr std::array activations = {
    ActivationName{Activation::relu, "relu"},         ActivationName{Activation::gelu_tanh, "gelu_new"},
    ActivationName{Activation::gelu_erf, "gelu"},     ActivationName{Activation::gelu_tanh, "gelu_pytorch_tanh"},
    ActivationName{Activation::silu, "silu"},         ActivationName{Activation::silu, "swish"},
    ActivationName{Activation::relu_squared, "relu2"}};

const char* foreign_name(Activation activation) {
  for (const ActivationName& known : activations)
    if (known.activation == activation) return known.name;
  throw std::logic_error("an activation without a name in transformers");
}

Activation read_activation(const JsonNode& node, const char* otherwise) {
  const std::string name = node.is_null() ? otherwise : node.text();
  for (const ActivationName& known : activations)
    if (name == known.name) return known.activation;
  node.refuse("relu, gelu, gelu_new, gelu_pytorch_tanh, silu or relu2");
}

// ---- which family holds a model

/// "model.norm is post, expected pre", one for each key in the way.
class Obstacles {
 public:
  template <class T>
  void expect(bool right, const char* key, const T& value, const char* expected) {
    if (!right) texts_.push_back(fmt::format("{} is {}, expected {}", key, value, expected));
  }
  bool none() const { return texts_.empty(); }
  std::string text() const { return fmt::format("{}", fmt::join(texts_, ", ")); }

 private:
  std::vector<std::string> texts_;
};

Obstacles obstacles(const ModelConfig& m, Family family) {
  Obstacles found;
  const bool qwen3 = family == Family::qwen3, mistral = family == Family::mistral;
  const std::set<int> windows(m.sliding_window.begin(), m.sliding_window.end());
  const bool none = windows.empty() || windows == std::set{0};
  found.expect(m.norm == NormPlacement::pre, "model.norm", name_of(m.norm), "pre");
  if (qwen3)
    found.expect(windows.size() < 2 || (windows.size() == 2 && windows.contains(0)), "model.sliding_window",
                 yaml_value(m.sliding_window), "one size beside 0");
  else
    found.expect(mistral ? windows.size() == 1 && !none : none, "model.sliding_window",
                 yaml_value(m.sliding_window), mistral ? "one size above 0" : "none");
  found.expect(m.qk_norm == qwen3, "model.qk_norm", m.qk_norm, qwen3 ? "true" : "false");
  found.expect(m.logit_soft_cap == 0, "model.logit_soft_cap", m.logit_soft_cap, "0");
  if (family != Family::gpt2) {
    found.expect(m.positions == Positions::rotary, "model.positions", name_of(m.positions), "rotary");
    found.expect(m.positions != Positions::rotary || m.rotary_width() == m.head_width(), "model.rotary_fraction",
                 m.rotary_fraction, "1");
    found.expect(m.norm_kind == NormKind::rms, "model.norm_kind", name_of(m.norm_kind), "rms");
    found.expect(m.gated, "model.gated", m.gated, "true");
    if (qwen3 || mistral) found.expect(!m.bias, "model.bias", m.bias, "false");
    if (!qwen3)
      found.expect(m.channels % m.heads == 0, "model.heads", m.heads,
                   "a divisor of model.channels");  // also with head_dim
  } else {
    found.expect(m.positions == Positions::learned || m.positions == Positions::none, "model.positions",
                 name_of(m.positions), "learned or none");
    found.expect(m.norm_kind == NormKind::layer, "model.norm_kind", name_of(m.norm_kind), "layer");
    found.expect(!m.gated, "model.gated", m.gated, "false");
    found.expect(m.key_heads() == m.heads, "model.key_value_heads", m.key_value_heads, "0");
    found.expect(m.query_width() == m.channels, "model.head_size", m.head_size, "model.channels / model.heads");
  }
  return found;
}

// ---- reading

constexpr std::int64_t largest_extent = std::int64_t{1} << 24;  ///< sums of a few are counted in int

int read_extent(const JsonNode& node) {
  return int(node.whole(1, largest_extent));
}
int read_extent(const JsonNode& node, int otherwise) {
  return node.is_null() ? otherwise : read_extent(node);
}

double read_positive(const JsonNode& node) {
  if (!(node.number() > 0) || !std::isfinite(node.number())) node.refuse("a number above 0");
  return node.number();
}
double read_positive(const JsonNode& node, double otherwise) {
  return node.is_null() ? otherwise : read_positive(node);
}

double read_dropout(const JsonNode& node, double otherwise) {
  if (node.is_null()) return otherwise;
  if (!(node.number() >= 0 && node.number() < 1)) node.refuse("a rate, 0 to below 1");
  return node.number();
}

void expect_flag(const JsonNode& node, bool expected, bool otherwise) {
  if (node.flag(otherwise) != expected) node.refuse(expected ? "true" : "false");
}

void read_gpt2(const JsonNode& root, ModelConfig& m) {
  m.vocabulary = read_extent(root["vocab_size"]);
  m.context = read_extent(root["n_positions"]);
  m.channels = read_extent(root["n_embd"]);
  m.layers = read_extent(root["n_layer"]);
  m.heads = read_extent(root["n_head"]);
  m.feed_forward = read_extent(root["n_inner"], 0);
  if (m.feed_forward == 0) m.feed_forward = 4 * m.channels;
  m.norm_epsilon = read_positive(root["layer_norm_epsilon"], 1e-5);
  m.activation = read_activation(root["activation_function"], "gelu_new");
  m.tied_head = root["tie_word_embeddings"].flag(true);
  expect_flag(root["scale_attn_weights"], true, true);
  expect_flag(root["scale_attn_by_inverse_layer_idx"], false, false);
  expect_flag(root["add_cross_attention"], false, false);
  m.dropout = read_dropout(root["resid_pdrop"], 0.1);
  for (const char* key : {"attn_pdrop", "embd_pdrop"})
    if (read_dropout(root[key], 0.1) != m.dropout)
      root[key].refuse(fmt::format("{}, as resid_pdrop: there is one rate here; make them equal", m.dropout));
}

/// rope_theta and rope_scaling, or both in rope_parameters.
void read_rotary(const JsonNode& root, ModelConfig& m) {
  const JsonNode parameters = root["rope_parameters"];
  const JsonNode scaling = parameters.is_null() ? root["rope_scaling"] : parameters;
  m.positions = Positions::rotary;
  if (!root["rope_theta"].is_null() || parameters.is_null())
    m.rotary_base = read_positive(root["rope_theta"], 10000);
  else
    m.rotary_base = read_positive(parameters["rope_theta"]);  // none: one for each kind of layer, say
  for (const JsonNode& node :
       {root["partial_rotary_factor"], scaling.is_null() ? scaling : scaling["partial_rotary_factor"]})
    if (!node.is_null() && node.number() != 1) node.refuse("1");
  if (scaling.is_null()) return;
  const JsonNode kind = scaling["rope_type"].is_null() ? scaling["type"] : scaling["rope_type"];
  if (kind.is_null() && !scaling["factor"].is_null())
    scaling["rope_type"].refuse("default or llama3, as there is a factor");
  const std::string name = kind.is_null() ? "default" : kind.text();
  if (name == "default") return;
  if (name != "llama3") kind.refuse("default or llama3");
  m.rotary_factor = read_positive(scaling["factor"]);
  m.rotary_low_frequency = read_positive(scaling["low_freq_factor"]);
  m.rotary_high_frequency = read_positive(scaling["high_freq_factor"]);
  m.rotary_original_context = read_extent(scaling["original_max_position_embeddings"]);
}

constexpr const char* full_layer = "full_attention";
constexpr const char* sliding_layer = "sliding_attention";

/// The shortest list of which `all` is a repetition, the last time maybe in part.
std::vector<int> shortest_period(const std::vector<int>& all) {
  std::size_t period = 1;
  while (!std::equal(all.begin() + std::ptrdiff_t(period), all.end(), all.begin())) ++period;
  return {all.begin(), all.begin() + std::ptrdiff_t(period)};
}

enum class LlamaKind { llama, mistral, qwen3 };

void read_llama(const JsonNode& root, LlamaKind kind, ModelConfig& m) {
  const bool mistral = kind == LlamaKind::mistral, qwen3 = kind == LlamaKind::qwen3;
  m.vocabulary = read_extent(root["vocab_size"]);
  m.context = read_extent(root["max_position_embeddings"]);
  m.channels = read_extent(root["hidden_size"]);
  m.layers = read_extent(root["num_hidden_layers"]);
  m.heads = read_extent(root["num_attention_heads"]);
  m.key_value_heads = read_extent(root["num_key_value_heads"], mistral ? 8 : m.heads);
  if (m.key_value_heads == m.heads) m.key_value_heads = 0;
  m.head_size = read_extent(root["head_dim"], qwen3 ? 128 : 0);
  if (m.head_size == 0 && m.channels % m.heads != 0)
    root["num_attention_heads"].refuse(fmt::format("a divisor of hidden_size {}, or head_dim", m.channels));
  if (m.head_size > 0 && std::int64_t{m.head_size} * m.heads == m.channels) m.head_size = 0;
  m.feed_forward = read_extent(root["intermediate_size"]);
  m.norm_kind = NormKind::rms;
  m.norm_epsilon = read_positive(root["rms_norm_eps"], 1e-6);
  m.activation = read_activation(root["hidden_act"], "silu");
  m.gated = true;
  m.tied_head = root["tie_word_embeddings"].flag(false);
  m.bias = root["attention_bias"].flag(false);
  m.qk_norm = qwen3;
  if (qwen3 && m.bias) root["attention_bias"].refuse("false: all linear layers have biases here, or none");
  if (!qwen3 && root["mlp_bias"].flag(false) != m.bias)
    root["mlp_bias"].refuse(
        fmt::format("{}, as attention_bias: all linear layers have biases here, or none", m.bias));
  m.dropout = read_dropout(root["attention_dropout"], 0);
  read_rotary(root, m);
}

/// sliding_window, of Qwen 3 in the layers that layer_types or max_window_layers name; `given`: also as null.
void read_windows(const JsonNode& root, bool given, bool qwen3, ModelConfig& m) {
  const JsonNode node = root["sliding_window"];
  if (given && node.is_null()) return;
  const int window = read_extent(node, 4096);  // transformers' default
  m.sliding_window = {window};
  if (!qwen3) return;
  const JsonNode types = root["layer_types"];
  if (!types.is_null() && types.list().size() != std::size_t(m.layers))
    types.refuse(fmt::format("one for each of {} layers", m.layers));
  const JsonNode first = root["max_window_layers"];
  const std::int64_t full = first.is_null() ? 28 : first.whole(0, largest_extent);
  std::vector<int> windows;
  for (int l = 0; l < m.layers; ++l) {
    bool slides = l >= full;
    if (!types.is_null()) {
      const JsonNode type = types.at(std::size_t(l));
      slides = type.text() == sliding_layer;
      if (!slides && type.text() != full_layer) type.refuse(fmt::format("{} or {}", full_layer, sliding_layer));
    }
    windows.push_back(slides ? window : 0);
  }
  m.sliding_window = shortest_period(windows);
  if (m.sliding_window == std::vector{0}) m.sliding_window.clear();
}

/// Which layers have the window.
void write_layer_types(const ModelConfig& m, Json& config) {
  const int window = m.sliding_window.empty() ? 0 : std::ranges::max(m.sliding_window);
  Json types = Json::array();
  int full = 0;  // layers before the first one with a window: of versions that know no layer_types
  for (int l = 0; l < m.layers; ++l) {
    const bool slides = window > 0 && m.sliding_window[std::size_t(l) % m.sliding_window.size()] > 0;
    types.push_back(slides ? sliding_layer : full_layer);
    if (!slides && full == l) ++full;
  }
  config.update(Json{{"layer_types", types},
                     {"max_window_layers", full},
                     {"sliding_window", window > 0 ? Json(window) : Json()},
                     {"use_sliding_window", window > 0}});
}

}  // namespace

const char* architecture_name(Family family) {
  switch (family) {
    case Family::gpt2:
      return "GPT2LMHeadModel";
    case Family::llama:
      return "LlamaForCausalLM";
    case Family::mistral:
      return "MistralForCausalLM";
    case Family::qwen3:
      return "Qwen3ForCausalLM";
  }
  return "?";
}

Family family_of(const ModelConfig& model) {
  std::string reasons;
  for (const Family family : {Family::gpt2, Family::llama, Family::mistral, Family::qwen3}) {
    const Obstacles found = obstacles(model, family);
    if (found.none()) return family;
    reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", architecture_name(family), found.text());
  }
  throw ConfigError("no architecture of transformers that is known here holds this model ({})", reasons);
}

std::string write_model_config(const ModelConfig& m, Token end_of_text, WeightType type) {
  const Json end = end_of_text < 0 ? Json() : Json(end_of_text);
  const Family family = family_of(m);
  Json config = {{"architectures", Json::array({architecture_name(family)})}};
  if (family == Family::gpt2) {
    config.update(Json{{"model_type", "gpt2"},
                       {"activation_function", foreign_name(m.activation)},
                       {"attn_pdrop", m.dropout},
                       {"embd_pdrop", m.dropout},
                       {"resid_pdrop", m.dropout},
                       {"layer_norm_epsilon", m.norm_epsilon},
                       {"n_ctx", m.context},
                       {"n_embd", m.channels},
                       {"n_head", m.heads},
                       {"n_inner", m.feed_forward},
                       {"n_layer", m.layers},
                       {"n_positions", m.context},
                       {"scale_attn_weights", true}});
  } else {
    const std::string activation = foreign_name(m.activation);
    Json scaling;
    if (m.rotary_factor != 1)
      scaling = {{"rope_type", "llama3"},
                 {"factor", m.rotary_factor},
                 {"low_freq_factor", m.rotary_low_frequency},
                 {"high_freq_factor", m.rotary_high_frequency},
                 {"original_max_position_embeddings", m.rotary_original_context}};
    config.update(Json{{"model_type", family == Family::qwen3     ? "qwen3"
                                      : family == Family::mistral ? "mistral"
                                                                  : "llama"},
                       {"attention_bias", m.bias},
                       {"attention_dropout", m.dropout},
                       {"head_dim", m.head_width()},
                       {"hidden_act", activation},
                       {"hidden_size", m.channels},
                       {"intermediate_size", m.feed_forward},
                       {"max_position_embeddings", m.context},
                       {"mlp_bias", m.bias},
                       {"num_attention_heads", m.heads},
                       {"num_hidden_layers", m.layers},
                       {"num_key_value_heads", m.key_heads()},
                       {"rms_norm_eps", m.norm_epsilon},
                       {"rope_scaling", scaling},
                       {"rope_theta", m.rotary_base}});
    if (family != Family::llama) config.erase("mlp_bias");
    if (family == Family::mistral) config["sliding_window"] = m.sliding_window.front();
    if (family == Family::qwen3) write_layer_types(m, config);
  }
  config.update(Json{{"bos_token_id", end},
                     {"eos_token_id", end},
                     {"initializer_range", 0.02},
                     {"tie_word_embeddings", m.tied_head},
                     {"torch_dtype", weight_type_name(type)},
                     {"use_cache", true},
                     {"vocab_size", m.vocabulary}});
  return config.dump(2) + "\n";
}

std::string write_generation_config(Token end_of_text) {
  const Json end = end_of_text < 0 ? Json() : Json(end_of_text);
  return Json{{"_from_model_config", true}, {"bos_token_id", end}, {"eos_token_id", end}}.dump(2) + "\n";
}

std::vector<Token> read_ends(std::string_view text, std::string_view where) {
  const nlohmann::json document = read_json(text, where, "a configuration of transformers");
  const JsonNode ends = JsonNode{document, fmt::format("{}:", where)}["eos_token_id"];
  const auto token = [](const JsonNode& node) {
    return Token(node.whole(0, std::numeric_limits<Token>::max(), "a token"));
  };
  if (ends.is_null()) return {};
  if (!ends.value.is_array()) return {token(ends)};
  std::vector<Token> all;
  for (std::size_t i = 0; i < ends.list().size(); ++i) all.push_back(token(ends.at(i)));
  return all;
}

ForeignModel read_model_config(std::string_view text, std::string_view where) {
  const nlohmann::json document = read_json(text, where, "the config.json of a model of transformers");
  const JsonNode root{document, fmt::format("{}:", where)};
  const JsonNode architectures = root["architectures"];
  if (architectures.is_null()) architectures.refuse("the architecture's name in a list");
  if (architectures.list().size() != 1) architectures.refuse("one architecture");
  const JsonNode node = architectures.at(0);
  const std::string& name = node.text();
  constexpr const char* known = "GPT2LMHeadModel, LlamaForCausalLM, MistralForCausalLM or Qwen3ForCausalLM";
  if (name.starts_with("Qwen2"))
    node.refuse(fmt::format("{}: biases of queries, keys and values alone are not known here", known));
  const bool gpt2 = name == "GPT2LMHeadModel", mistral = name == "MistralForCausalLM",
             qwen3 = name == "Qwen3ForCausalLM";
  if (!gpt2 && !mistral && !qwen3 && name != "LlamaForCausalLM") node.refuse(known);
  if (!root["quantization_config"].is_null())
    root["quantization_config"].refuse("none: weights in F32, F16, BF16 or F64");
  ForeignModel read{gpt2 ? Family::gpt2 : qwen3 ? Family::qwen3 : Family::llama, {}};
  if (gpt2)
    read_gpt2(root, read.model);
  else
    read_llama(root, mistral ? LlamaKind::mistral : qwen3 ? LlamaKind::qwen3 : LlamaKind::llama, read.model);
  if (mistral || (qwen3 && root["use_sliding_window"].flag(false)))
    read_windows(root, document.contains("sliding_window"), qwen3, read.model);
  return read;
}

}  // namespace dekoder
