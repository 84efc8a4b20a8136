// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/decoder.hpp"
#include "model/model_summary.hpp"

namespace dekoder {

/// A decoder with its parameters and the activations of B sequences, without an optimizer: what evaluation and
/// attention maps of a checkpoint need.
struct InferenceModel {
  ParameterStore store;
  Decoder decoder;
  ActivationArena arena;
  DecoderActivations activations;

  /// model.vocabulary must be set.
  InferenceModel(const ModelConfig& model, int sequences)
      : store(decoder_parameters(model)),
        decoder(model, store),
        arena(activation_bytes(model, sequences)),
        activations(arena, model, sequences) {}
  InferenceModel(const InferenceModel&) = delete;
};

}  // namespace dekoder
