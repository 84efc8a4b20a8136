// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "layers/feed_forward.hpp"
#include "layers/normalization_layer.hpp"
#include "layers/self_attention.hpp"

namespace dekoder {

/// Where the dropout of one micro-batch comes from; rate 0 (evaluation, generation) switches it off everywhere.
struct DropoutKey {
  Real rate = 0;
  std::uint64_t seed = 0, step = 0, first_sample = 0;

  /// Sites of block l are 1 + 3 l + {0: attention weights, 1: attention output, 2: feed-forward output}; site 0 is
  /// the embedding.
  Dropout at(std::uint64_t site) const {
    return Dropout{rate, RandomStream(seed, site_of("dropout") + site, step), first_sample};
  }
};

/// The residual stream between two blocks: residual + dropout(delta), not yet added, so that the norm that comes
/// next adds it in its own pass. delta is empty where the sum is complete.
struct ResidualStream {
  ResidualTensor2 residual;  ///< (N,C)
  StoredTensor2 delta;       ///< (N,C) or empty
  Dropout dropout;
};

/// What one block keeps for its backward pass. Pre-norm: the norms' inputs are the residual stream. Post-norm:
/// their outputs are.
struct BlockActivations {
  NormActivations attention_norm;
  AttentionActivations attention;
  NormActivations feed_forward_norm;
  FeedForwardActivations feed_forward;

  BlockActivations(ActivationArena& arena, const std::string& name, const ModelConfig& model, int sequences);
  /// The memory of `other`, but for what recompute() begins with: pre-norm: the input of the first norm; post-norm:
  /// the output of the last, the next block's input.
  BlockActivations(ActivationArena& arena, const std::string& name, const ModelConfig& model, int sequences,
                   const BlockActivations& other);
};

/// Whether the residual stream and its gradient are of master numbers: in pre-norm, as model.residual says. In
/// post-norm products read the stream, so that it is stored.
bool residual_as_master(const ModelConfig& model);

/// What activations are kept for. What is not needed takes no memory.
enum class ActivationUse {
  training,        ///< forward and backward passes
  attention_maps,  ///< forward passes whose queries, keys, values and log-sums of every block are read afterwards
  losses,          ///< forward passes of which only the output counts
  cache            ///< forward passes of which only keys and values count, block by block
};

/// Scratch that all blocks share; that of gradients only for training.
struct BlockScratch {
  StoredTensor2 delta;        ///< (N,C) output of a sublayer
  StoredTensor2 grad_branch;  ///< (N,C) gradient inside a branch
  AttentionScratch attention;
  FeedForwardScratch feed_forward;
  MasterTensor3 norm_partials;  ///< (P,2,C)

  BlockScratch(ActivationArena& arena, const ModelConfig& model, int sequences, ActivationUse use);
};

/// One decoder block. Pre-norm (Xiong et al. 2020): x += attention(norm(x)); x += feed_forward(norm(x)).
/// Post-norm (Vaswani et al. 2017): x = norm(x + attention(x)); x = norm(x + feed_forward(x)).
struct DecoderBlock {
  std::string name;  ///< "blocks.03"
  NormPlacement placement;
  int index;  ///< l: names the dropout sites
  NormalizationLayer attention_norm;
  SelfAttention attention;
  NormalizationLayer feed_forward_norm;
  FeedForward feed_forward;

  static void declare(ParameterLayout& layout, const std::string& prefix, const ModelConfig& model);
  DecoderBlock(const ParameterStore& store, const std::string& prefix, const ModelConfig& model,
               const RotaryTable& rotary, int index);

  /// Takes the stream that enters the block and returns the one that leaves it (scratch.delta is its delta in
  /// pre-norm). `cached`: generation, one token per sequence (SelfAttention::forward).
  ResidualStream forward(const ExecSpace& exec, const ResidualStream& x, const DropoutKey& dropout,
                         const BlockActivations& saved, const BlockScratch& scratch,
                         const CachedKeysValues* cached = nullptr) const;

  /// Once more what forward left in `saved`, the output apart, where other blocks have the memory of it: with the
  /// same kernels on the same numbers, so with the same bits. `input` is the block's (post-norm reads it).
  void recompute(const ExecSpace& exec, const ResidualTensor2& input, const DropoutKey& dropout,
                 const BlockActivations& saved, const BlockScratch& scratch) const;

  /// grad_residual(N,C) enters as d loss/d (what leaves the block) and is overwritten by d loss/d (what enters it).
  /// input is the block's input (post-norm reads it; the embedding or the previous block's last norm).
  void backward(const ExecSpace& exec, ConstStoredTensor2 input, const DropoutKey& dropout,
                const BlockActivations& saved, const BlockScratch& scratch,
                const ResidualTensor2& grad_residual) const;

 private:
  /// Pre-norm, from the first norm's output to the activated hidden layer.
  void attend_and_activate(const ExecSpace& exec, const DropoutKey& dropout, const BlockActivations& saved,
                           const BlockScratch& scratch, const CachedKeysValues* cached) const;
};

/// "blocks.03"
std::string block_name(int index);

}  // namespace dekoder
