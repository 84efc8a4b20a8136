// SPDX-License-Identifier: Apache-2.0
#include "huggingface/weight_parts.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>

#include "base/decimal.hpp"
#include "base/error.hpp"
#include "base/utf8.hpp"

namespace dekoder {

namespace {

constexpr std::string_view gpt2_prefix = "transformer.";  ///< which the first files of GPT-2 lack
constexpr std::string_view head_bias = "head.bias";       ///< which no architecture has
constexpr std::string_view positions_name = "transformer.wpe.weight";

/// A layer of a block here, and its parts there with their rows.
struct LayerParts {
  std::vector<std::pair<std::string, int>> parts;
  bool is_linear = true;
};

LayerParts layer_parts(Family family, const ModelConfig& m, std::string_view layer) {
  const int D = m.head_width(), C = m.channels, F = m.feed_forward;
  const bool gpt2 = family == Family::gpt2;
  if (layer == "attention_norm") return {{{gpt2 ? "ln_1" : "input_layernorm", C}}, false};
  if (layer == "feed_forward_norm") return {{{gpt2 ? "ln_2" : "post_attention_layernorm", C}}, false};
  if (layer == "attention.qkv" && gpt2) return {{{"attn.c_attn", m.qkv_width()}}};
  if (layer == "attention.qkv")
    return {{{"self_attn.q_proj", m.query_width()},
             {"self_attn.k_proj", m.key_heads() * D},
             {"self_attn.v_proj", m.key_heads() * D}}};
  if (layer == "attention.query_norm") return {{{"self_attn.q_norm", D}}, false};
  if (layer == "attention.key_norm") return {{{"self_attn.k_norm", D}}, false};
  if (layer == "attention.output") return {{{gpt2 ? "attn.c_proj" : "self_attn.o_proj", C}}};
  if (layer == "feed_forward.up") return {{{"mlp.c_fc", F}}};
  if (layer == "feed_forward.gate_up") return {{{"mlp.gate_proj", F}, {"mlp.up_proj", F}}};
  if (layer == "feed_forward.down") return {{{gpt2 ? "mlp.c_proj" : "mlp.down_proj", C}}};
  throw std::logic_error(fmt::format("transformers has no name for the layer {}", layer));
}

/// The name outside of blocks.
std::string outer_name(Family family, std::string_view ours) {
  const bool gpt2 = family == Family::gpt2;
  if (ours == "token_embedding") return gpt2 ? "transformer.wte" : "model.embed_tokens";
  if (ours == "position_embedding") return "transformer.wpe";
  if (ours == "final_norm") return gpt2 ? "transformer.ln_f" : "model.norm";
  if (ours == "head") return "lm_head";
  throw std::logic_error(fmt::format("transformers has no name for {}", ours));
}

const SafetensorsFolder::Place* find(const SafetensorsFolder& weights, const std::string& name) {
  const auto& tensors = weights.tensors();
  auto found = tensors.find(name);
  if (found == tensors.end() && name.starts_with(gpt2_prefix))
    found = tensors.find(name.substr(gpt2_prefix.size()));
  return found == tensors.end() ? nullptr : &found->second;
}

/// Buffers that files of older versions hold.
bool is_no_parameter(std::string_view name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") ||
         name.ends_with(".rotary_emb.inv_freq");
}

}  // namespace

std::vector<std::uint64_t> WeightPart::shape() const {
  const auto r = std::uint64_t(rows), c = std::uint64_t(columns);
  if (columns == 0) return {r};
  return transposed ? std::vector{c, r} : std::vector{r, c};
}

std::vector<WeightPart> weight_parts(Family family, const ModelConfig& m, const ParameterLayout& layout) {
  std::vector<WeightPart> parts;
  const bool gpt2 = family == Family::gpt2;
  const auto add_zero_bias = [&](const WeightPart& of) {
    const std::string stem = of.theirs.substr(0, of.theirs.rfind('.'));
    if (gpt2 && !m.bias) parts.push_back({stem + ".bias", "", 0, of.rows});
  };
  for (const ParameterEntry& entry : layout.entries()) {
    const std::size_t dot = entry.name.rfind('.');
    const std::string_view layer = std::string_view(entry.name).substr(0, dot);
    const bool is_bias = entry.name.ends_with(".bias");
    const std::string suffix = is_bias ? ".bias" : ".weight";
    const int columns = entry.shape.size() > 1 ? entry.shape[1] : 0;
    constexpr std::string_view blocks = "blocks.";
    if (!layer.starts_with(blocks)) {
      if (entry.name == head_bias) continue;
      const bool of_vocabulary = layer == "token_embedding" || layer == "head";
      parts.push_back({outer_name(family, layer) + suffix, entry.name, 0,
                       of_vocabulary ? m.vocabulary : entry.shape[0], columns});
      if (layer == "final_norm" && !is_bias) add_zero_bias(parts.back());
      if (layer == "token_embedding" && gpt2 && m.positions == Positions::none)
        parts.push_back({std::string(positions_name), "", 0, m.context, m.channels});
      continue;
    }
    const std::string_view rest = layer.substr(blocks.size());
    const std::size_t end = rest.find('.');
    int block = 0;
    read_decimal(std::string(rest.substr(0, end)), block);
    const LayerParts found = layer_parts(family, m, rest.substr(end + 1));
    int row = 0;
    for (const auto& [name, rows] : found.parts) {
      parts.push_back({fmt::format("{}.{}.{}{}", gpt2 ? "transformer.h" : "model.layers", block, name, suffix),
                       entry.name, row, rows, columns, gpt2 && found.is_linear && !is_bias});
      if (!is_bias) add_zero_bias(parts.back());
      row += rows;
    }
    if (row != entry.shape[0])
      throw std::logic_error(fmt::format("{}: {} rows of {} have a place", entry.name, row, entry.shape[0]));
  }
  return parts;
}

std::vector<TensorToWrite> tensors_to_write(const std::vector<WeightPart>& parts, const ParameterLayout& layout,
                                            std::span<const Master> values) {
  std::vector<TensorToWrite> tensors;
  for (const ParameterEntry& entry : layout.entries()) {
    const auto own = values.subspan(entry.offset, entry.size());
    if (entry.name == head_bias && std::ranges::any_of(own, [](Master x) { return x != 0; }))
      throw ConfigError(
          "no architecture of transformers holds this model: model.bias is true and model.tied_head false, and "
          "heads "
          "have no bias there; {} is not zero",
          head_bias);
  }
  for (const WeightPart& part : parts) {
    if (part.ours.empty()) {
      tensors.push_back({part.theirs, part.shape(), [](std::span<float> out) { std::ranges::fill(out, 0.0f); }});
      continue;
    }
    const auto width = std::size_t(std::max(part.columns, 1)), rows = std::size_t(part.rows);
    const std::span<const Master> ours =
        values.subspan(layout.find(part.ours).offset + std::size_t(part.first_row) * width, rows * width);
    tensors.push_back({part.theirs, part.shape(), [=, transposed = part.transposed](std::span<float> out) {
                         for (std::size_t r = 0; r < rows; ++r)
                           for (std::size_t c = 0; c < width; ++c)
                             out[transposed ? c * rows + r : r * width + c] = float(ours[r * width + c]);
                       }});
  }
  return tensors;
}

void require_parts(const std::vector<WeightPart>& parts, const SafetensorsFolder& weights, bool tied_head) {
  std::set<const SafetensorsTensor*> used;
  for (const WeightPart& part : parts) {
    const SafetensorsFolder::Place* place = find(weights, part.theirs);
    if (place == nullptr)
      throw DataError(
          "there is no tensor '{}' in the safetensors files, which config.json asks for; copy or download "
          "the folder again",
          part.theirs);
    std::vector<std::uint64_t> shape = place->tensor->shape;
    if (part.theirs == positions_name && shape.size() == 2 && shape[0] > std::uint64_t(part.rows))
      shape[0] = std::uint64_t(part.rows);
    if (shape != part.shape())
      throw DataError("{}: '{}' has the shape {}; config.json asks for {}", place->file->path().string(),
                      place->tensor->name, shape_text(place->tensor->shape), shape_text(part.shape()));
    used.insert(place->tensor);
  }
  for (const auto& [name, place] : weights.tensors())
    if (!used.contains(place.tensor) && !is_no_parameter(name) && !(tied_head && name == "lm_head.weight"))
      throw DataError("{}: has a tensor '{}' that the architecture of config.json does not have",
                      place.file->path().string(), excerpt(name));
}

HostBuffer read_parameter(const ParameterEntry& entry, const std::vector<WeightPart>& parts,
                          const SafetensorsFolder& weights) {
  HostBuffer host("import.parameter", entry.size());
  std::vector<float> values;
  for (const WeightPart& part : parts) {
    if (part.ours != entry.name) continue;
    const SafetensorsFolder::Place& place = *find(weights, part.theirs);
    values.resize(place.tensor->elements);
    place.file->read(*place.tensor, values);
    if (const auto bad = std::ranges::find_if(values, [](float x) { return !std::isfinite(x); });
        bad != values.end())
      throw DataError("{}: element {} of '{}' is {}; expected numbers that single precision has",
                      place.file->path().string(), bad - values.begin(), place.tensor->name, *bad);
    const auto width = std::size_t(std::max(part.columns, 1)), rows = std::size_t(part.rows);
    Master* out = host.data() + std::size_t(part.first_row) * width;
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < width; ++c)
        out[r * width + c] = Master(values[part.transposed ? c * rows + r : r * width + c]);
  }
  return host;
}

}  // namespace dekoder
