// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "config/run_config.hpp"
#include "layers/decoder_block.hpp"

namespace dekoder {

/// Floating-point operations of training per token, the model's own and no recomputation: 6 per weight of every
/// matrix product (2 forward, 4 backward; the head with the unpadded vocabulary) plus causal attention, 6 L C T (2
/// products, half of the T^2 scores, 3 passes), less what lies outside of windows.
double flops_per_token(const ModelConfig& model);

/// FLOPs of the optimizer's matrix products in a step, over all ranks: Muon's; 0 with AdamW.
double optimizer_flops(const RunConfig& config);

/// Bytes that the passes of one optimizer step move to and from memory on one rank with `micro_batches` of them, if
/// each reads and writes its tensors once: those of a product too, however large. Dropout and messages are left
/// out.
double bytes_per_step(const RunConfig& config, long micro_batches);

/// Bytes of all activations and scratch for B sequences.
std::size_t activation_bytes(const ModelConfig& model, int sequences, ActivationUse use = ActivationUse::training);

/// What `dekoder describe` prints of a model and its training: every tensor with axes, shape and bytes; parameters;
/// FLOPs per token; the libraries of its products. Allocates nothing. (Memory: train/memory_plan.hpp.)
std::string model_summary(const RunConfig& config);

}  // namespace dekoder
