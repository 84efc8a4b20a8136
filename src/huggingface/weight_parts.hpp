// SPDX-License-Identifier: Apache-2.0
// Between the tensors of a model here and those of a family of transformers.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "huggingface/model_family.hpp"
#include "io/safetensors/safetensors_file.hpp"
#include "io/safetensors/safetensors_writer.hpp"
#include "tensor/parameter_store.hpp"

namespace dekoder {

/// A tensor of transformers: rows of one here.
struct WeightPart {
  std::string theirs;  ///< "model.layers.0.self_attn.k_proj.weight"
  std::string ours;    ///< "blocks.00.attention.qkv.weight"; empty: there is none here, it is all zero there
  int first_row = 0, rows = 0;  ///< elements of a vector
  int columns = 0;              ///< 0: a vector
  bool transposed = false;      ///< there: GPT-2 keeps weights as (in,out)

  std::vector<std::uint64_t> shape() const;  ///< there
};

/// Every tensor of a model of the family, in the order of `layout`, whose model it is. Rows of the vocabulary's
/// padding are in none; biases that a family has and the model has not are zero.
std::vector<WeightPart> weight_parts(Family family, const ModelConfig& model, const ParameterLayout& layout);

/// The tensors of a file for transformers, of parameters `values` (a flat buffer on the host, kept until they are
/// written). Throws ConfigError where a head has a bias that is not zero.
std::vector<TensorToWrite> tensors_to_write(const std::vector<WeightPart>& parts, const ParameterLayout& layout,
                                            std::span<const Master> values);

/// Throws DataError unless a folder has the tensors of all parts, of these shapes, and no others; learned positions
/// may be more than the context. Tensors that are no parameters (masks, frequencies) and a second copy of a tied
/// head do not count.
void require_parts(const std::vector<WeightPart>& parts, const SafetensorsFolder& weights, bool tied_head);

/// A parameter of the model, read from the folder; what has no part is zero. Throws DataError for elements that are
/// not finite in single precision.
HostBuffer read_parameter(const ParameterEntry& entry, const std::vector<WeightPart>& parts,
                          const SafetensorsFolder& weights);

}  // namespace dekoder
