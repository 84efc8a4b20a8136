// SPDX-License-Identifier: Apache-2.0
// A model as llama.cpp reads it: names and order of its tensors, and what GGUF says of its shape.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "io/gguf/gguf_writer.hpp"
#include "tensor/parameter_store.hpp"

namespace dekoder {

/// The architecture of llama.cpp that computes what this model does: "gpt2", "llama", "qwen3". Throws ConfigError,
/// naming the keys in the way, where there is none.
const char* gguf_architecture(const ModelConfig& model);

/// The tensors of parameters `values` (a flat buffer on the host, kept until they are written), matrices in this
/// type. Vectors and positions are float32, as llama.cpp adds them to float32; matrices whose rows are no whole
/// blocks of q8_0 are float16. `frequency`: rotary_frequency of this model. Throws ConfigError as tensors_to_write.
std::vector<TensorToWrite> gguf_tensors(const ModelConfig& model, const ParameterLayout& layout,
                                        std::span<const Master> values, WeightType type,
                                        const std::function<double(int)>& frequency);

/// What a file says of the model; its tokenizer is not in it.
GgufMetadata gguf_metadata(const std::string& name, const ModelConfig& model, WeightType type);

}  // namespace dekoder
