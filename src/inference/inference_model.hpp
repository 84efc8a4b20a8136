// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>

#include "io/run/checkpoint.hpp"
#include "model/decoder.hpp"
#include "tokenizer/tokenizer.hpp"

namespace dekoder {

/// A saved model without its optimizer: for evaluation, generation and attention maps.
struct InferenceModel {
  CheckpointInfo info;
  RunConfig config;
  Tokenizer tokenizer;
  ParameterStore store;
  Decoder decoder;

  /// Throws as read_checkpoint_parameters.
  explicit InferenceModel(const std::filesystem::path& checkpoint);
  InferenceModel(const InferenceModel&) = delete;
};

/// The model in a checkpoint file, or in the newest valid one of a run directory; changes nothing on the disk.
/// Throws DataError where there is none.
std::unique_ptr<InferenceModel> load_inference_model(const std::filesystem::path& run);

}  // namespace dekoder
