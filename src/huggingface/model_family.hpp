// SPDX-License-Identifier: Apache-2.0
// Between the configuration of a model here and the config.json of transformers.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/token.hpp"
#include "config/run_config.hpp"
#include "io/safetensors/safetensors_writer.hpp"

namespace dekoder {

/// Architectures of transformers that are known here, by how they name their tensors.
enum class Family {
  gpt2,     ///< GPT2LMHeadModel
  llama,    ///< LlamaForCausalLM, which holds all that MistralForCausalLM does without a sliding window
  mistral,  ///< MistralForCausalLM: one window in all layers
  qwen3     ///< Qwen3ForCausalLM: Llama's tensors and the norms of queries and keys; one window in some layers
};
/// "GPT2LMHeadModel", "LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM".
const char* architecture_name(Family family);

/// The family that computes what this model does. Throws ConfigError, naming the keys in the way of each, where
/// there is none.
Family family_of(const ModelConfig& model);

/// config.json. `end_of_text`: of the tokenizer, or -1.
std::string write_model_config(const ModelConfig& model, Token end_of_text, WeightType type);
/// generation_config.json.
std::string write_generation_config(Token end_of_text);

/// What a config.json says.
struct ForeignModel {
  Family family;
  ModelConfig model;
};

/// The tokens that end a text, of a config.json or generation_config.json; none where it does not say. `where` as
/// below. Throws DataError where they are no tokens.
std::vector<Token> read_ends(std::string_view text, std::string_view where);

/// Reads a config.json; `where` stands for it in messages. Throws DataError naming the key where it is damaged or
/// of a model that this program does not compute.
ForeignModel read_model_config(std::string_view text, std::string_view where);

}  // namespace dekoder
