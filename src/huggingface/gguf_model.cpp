// SPDX-License-Identifier: Apache-2.0
#include "huggingface/gguf_model.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/error.hpp"
#include "config/config_fields.hpp"
#include "config/setting_value.hpp"
#include "huggingface/weight_parts.hpp"

namespace dekoder {

namespace {

struct Renamed {
  std::string_view theirs, gguf;
};
constexpr Renamed outer_names[] = {
    {"transformer.wte", "token_embd"},   {"model.embed_tokens", "token_embd"}, {"transformer.wpe", "position_embd"},
    {"transformer.ln_f", "output_norm"}, {"model.norm", "output_norm"},        {"lm_head", "output"},
};
constexpr Renamed block_names[] = {
    {"ln_1", "attn_norm"},
    {"attn.c_attn", "attn_qkv"},
    {"attn.c_proj", "attn_output"},
    {"ln_2", "ffn_norm"},
    {"mlp.c_fc", "ffn_up"},
    {"mlp.c_proj", "ffn_down"},
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.o_proj", "attn_output"},
    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

std::string_view renamed(std::span<const Renamed> names, std::string_view stem) {
  for (const Renamed& known : names)
    if (known.theirs == stem) return known.gguf;
  throw std::logic_error(fmt::format("GGUF has no name for {}", stem));
}

/// "model.layers.3.self_attn.q_proj.weight" is "blk.3.attn_q.weight".
std::string gguf_name(std::string_view theirs) {
  const std::size_t dot = theirs.rfind('.');
  const std::string_view stem = theirs.substr(0, dot), suffix = theirs.substr(dot);
  for (const std::string_view blocks : {"model.layers.", "transformer.h."}) {
    if (!stem.starts_with(blocks)) continue;
    const std::string_view rest = stem.substr(blocks.size());
    const std::size_t end = rest.find('.');
    return fmt::format("blk.{}.{}{}", rest.substr(0, end), renamed(block_names, rest.substr(end + 1)), suffix);
  }
  return fmt::format("{}{}", renamed(outer_names, stem), suffix);
}

/// The architecture llama turns the channels 2 i and 2 i + 1 of a head as one pair, where here, in transformers and
/// in the architecture qwen3 these are i and i + D/2: its rows of queries and keys come in that order.
void interleave_halves(std::span<float> rows, std::size_t head_size, std::size_t columns) {
  const std::size_t half = head_size / 2;
  std::vector<float> head(head_size * columns);
  for (std::size_t begin = 0; begin < rows.size(); begin += head.size()) {
    const auto place = rows.begin() + std::ptrdiff_t(begin);
    std::copy_n(place, head.size(), head.begin());
    for (std::size_t row = 0; row < head_size; ++row)
      std::copy_n(head.begin() + std::ptrdiff_t((row % 2 * half + row / 2) * columns), columns,
                  place + std::ptrdiff_t(row * columns));
  }
}

/// file_type: that of most tensors, and as such the number of llama.cpp's enum llama_ftype.
std::uint32_t file_type(WeightType type) {
  switch (type) {
    case WeightType::float32:
      return 0;
    case WeightType::float16:
      return 1;
    case WeightType::q8_0:
      return 7;
    case WeightType::bfloat16:
      return 32;
  }
  throw std::logic_error("a type of weights without a number in llama.cpp");
}

constexpr std::string_view gguf_positions_name = "position_embd.weight";

}  // namespace

const char* gguf_architecture(const ModelConfig& m) {
  const Family family = family_of(m);
  const bool gpt2 = family == Family::gpt2;
  const char* name = gpt2 ? "gpt2" : family == Family::qwen3 ? "qwen3" : "llama";
  const Activation only = gpt2 ? Activation::gelu_tanh : Activation::silu;
  const auto refuse = [&](const char* key, const std::string& value, const std::string& expected) {
    throw ConfigError(
        "{} is {}, expected {}: llama.cpp's architecture {} has no other; a folder for transformers "
        "holds this model: export it without .gguf",
        key, value, expected, name);
  };
  if (m.activation != only) refuse("model.activation", yaml_value(m.activation), yaml_value(only));
  if (family == Family::qwen3 && m.rotary_factor != 1)
    refuse("model.rotary_factor", yaml_value(m.rotary_factor), "1");
  for (int l = 0; l < m.layers; ++l)
    if (m.window(l) < m.context) refuse("model.sliding_window", yaml_value(m.sliding_window), "0 or model.context");
  return name;
}

std::vector<TensorToWrite> gguf_tensors(const ModelConfig& m, const ParameterLayout& layout,
                                        std::span<const Master> values, WeightType type,
                                        const std::function<double(int)>& frequency) {
  const bool is_llama = gguf_architecture(m) == std::string_view("llama");
  std::vector<WeightPart> parts = weight_parts(family_of(m), m, layout);
  for (WeightPart& part : parts) part.transposed = false;  // GGUF has all weights as (out,in)
  std::vector<TensorToWrite> tensors = tensors_to_write(parts, layout, values);
  for (TensorToWrite& tensor : tensors) {
    tensor.name = gguf_name(tensor.name);
    const std::size_t columns = tensor.shape.size() > 1 ? tensor.shape[1] : 1;
    if (tensor.shape.size() > 1 && tensor.name != gguf_positions_name)
      tensor.type = type == WeightType::q8_0 && columns % q8_0_block != 0 ? WeightType::float16 : type;
    if (is_llama &&
        (tensor.name.find(".attn_q.") != std::string::npos || tensor.name.find(".attn_k.") != std::string::npos))
      tensor.fill = [fill = tensor.fill, head_size = std::size_t(m.head_width()), columns](std::span<float> out) {
        fill(out);
        interleave_halves(out, head_size, columns);
      };
  }
  if (m.rotary_factor != 1)  // what the frequencies are divided by
    tensors.push_back(
        {"rope_freqs.weight", {std::uint64_t(m.rotary_width() / 2)}, [&m, frequency](std::span<float> out) {
           for (std::size_t i = 0; i < out.size(); ++i)
             out[i] = float(std::pow(m.rotary_base, -2.0 * double(i) / m.rotary_width()) / frequency(int(i)));
         }});
  return tensors;
}

GgufMetadata gguf_metadata(const std::string& name, const ModelConfig& m, WeightType type) {
  const std::string architecture = gguf_architecture(m);
  GgufMetadata metadata = {{"general.architecture", architecture},
                           {"general.type", "model"},
                           {"general.name", name},
                           {"general.file_type", file_type(type)}};
  if (type == WeightType::q8_0) metadata.push_back({"general.quantization_version", std::uint32_t{2}});
  const auto say = [&](const char* key, GgufValue value) {
    metadata.push_back({fmt::format("{}.{}", architecture, key), std::move(value)});
  };
  say("vocab_size", std::uint32_t(m.vocabulary));
  say("context_length", std::uint32_t(m.context));
  say("embedding_length", std::uint32_t(m.channels));
  say("block_count", std::uint32_t(m.layers));
  say("feed_forward_length", std::uint32_t(m.feed_forward));
  say("attention.head_count", std::uint32_t(m.heads));
  say("attention.head_count_kv", std::uint32_t(m.key_heads()));
  say("attention.key_length", std::uint32_t(m.head_width()));
  say("attention.value_length", std::uint32_t(m.head_width()));
  const bool rms = m.norm_kind == NormKind::rms;
  say(rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", float(m.norm_epsilon));
  if (m.positions == Positions::rotary) {
    say("rope.dimension_count", std::uint32_t(m.rotary_width()));
    say("rope.freq_base", float(m.rotary_base));
  }
  return metadata;
}

}  // namespace dekoder
