// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <vector>

#include "layers/decoder_block.hpp"

namespace dekoder {

/// Rows of the embedding table and of the head: the vocabulary rounded up to model.vocabulary_multiple.
int padded_vocabulary(const ModelConfig& model);
/// Parameters of the rows that pad it.
std::size_t padding_parameters(const ModelConfig& model);

/// Every parameter of the decoder: name, axes, shape, weight decay, initial values. Allocates nothing.
ParameterLayout decoder_parameters(const ModelConfig& model);

/// The same as the optimizer of a run wants them: those that Muon updates are whole, and all averaged where the run
/// does so (ParameterEntry).
ParameterLayout run_parameters(const RunConfig& config);

/// A matrix that Muon updates, within the flat buffers: of each whole tensor all rows, or those of queries, keys
/// and values, of gate and up, each for itself, as in the models of its authors.
struct HiddenMatrix {
  std::size_t offset = 0;
  int rows = 0, columns = 0;
  std::size_t size() const { return std::size_t(rows) * std::size_t(columns); }
};
std::vector<HiddenMatrix> hidden_matrices(const ModelConfig& model, const ParameterLayout& layout);

/// Where the flat buffer of gradients is complete as backward goes: from element l on once block l is done, from
/// the last element on after loss_backward.
std::vector<std::size_t> backward_borders(const ParameterLayout& layout, int layers);

/// Tokens whose logits exist at one time: a power of two that keeps them within 64 Mi elements (256 MiB in fp32) on
/// CPUs, within 256 Mi (1 GiB) and 16384 tokens on GPUs, at most `tokens`. The head's weight gradient, V x C, is
/// read and written once per chunk, and a GPU needs thousands of rows to fill its product: hence the larger chunks
/// there.
long head_chunk(const ModelConfig& model, long tokens, bool on_host = device_is_host);

/// All activations and scratch for B sequences of T tokens, taken from an arena. Blocks share the memory of one
/// where nothing is read of them afterwards (ActivationUse) or where it is computed once more (Recompute);
/// backward passes need those of training.
struct DecoderActivations {
  std::vector<BlockActivations> blocks;  ///< L
  BlockScratch scratch;
  ResidualTensor2 embedded;  ///< (N,C) post-norm: the embedding; pre-norm: the same memory as the first norm's sum
  std::vector<NormActivations> final_norm;  ///< one in pre-norm, none in post-norm
  StoredTensor2 logits;                     ///< (M,V) one chunk
  MasterTensor2 head_partials;              ///< (P,V) bias gradient of the head, where it has one
  MasterTensor1 losses;                     ///< (N) nats
  MasterTensor1 z_losses;                   ///< (N) nats; empty where there is no z-loss
  ResidualTensor2 grad_residual;            ///< (N,C)
  IntTensor1 row_begin, row_tokens;         ///< (V+1), (N) the tokens, sorted
  IntTensor1 merged_tokens;                 ///< (N) their merge sort on GPUs, empty on CPUs
  AccumulatorTensor1 partials;              ///< scratch of the loss sum

  DecoderActivations(ActivationArena& arena, const ModelConfig& model, int sequences,
                     ActivationUse use = ActivationUse::training);

  std::size_t sequences() const { return blocks.front().attention.lse.extent(0); }  ///< B
  /// Whether one block's activations overwrite another's: Decoder::restore_block brings them back.
  bool shared() const {
    return blocks.front().attention.qkv.data() == blocks.back().attention.qkv.data() && blocks.size() > 1;
  }

 private:
  static std::vector<BlockActivations> take_blocks(ActivationArena& arena, const ModelConfig& model, int sequences,
                                                   ActivationUse use);
};

/// Keys and values of all blocks, for generation one token at a time.
struct KeyValueCache {
  std::vector<StoredTensor5> blocks;  ///< L tensors (B,2,G,T,D)
  MasterTensor3 sums;                 ///< (B,H,D) scratch of all blocks

  KeyValueCache(const ModelConfig& model, int sequences);
  /// That of sequence b alone, in the same memory.
  KeyValueCache sequence(int b) const;

 private:
  KeyValueCache() = default;
};

/// A decoder-only transformer: embeddings, L blocks, [norm], head. Owns nothing: parameters are slices of the
/// store, which must outlive it, activations come from the arena.
class Decoder {
 public:
  /// model.vocabulary must be set. Throws ShapeError/std::logic_error where the store is of another model.
  Decoder(const ModelConfig& model, const ParameterStore& store);

  /// Embeds tokens(B,T) and runs all blocks; what backward needs stays in `saved`. B and T must be those of
  /// `saved`.
  void forward(const ExecSpace& exec, ConstTokenTensor2 tokens, const DropoutKey& dropout,
               const DecoderActivations& saved) const;

  /// tokens(B,S) in one pass into the cache, from its beginning on; `saved` is of these extents, for any use.
  /// Throws ShapeError where the cache is shorter.
  void prefill(const ExecSpace& exec, ConstTokenTensor2 tokens, const KeyValueCache& cache,
               const DecoderActivations& saved) const;

  /// One more token(B,1) per sequence, at these positions of its text, against the cache, which holds those before
  /// it; `saved` is of context 1. The logits then follow from logits(). Throws ShapeError where the cache is full.
  void forward_cached(const ExecSpace& exec, ConstTokenTensor2 token, const FirstPositions& at,
                      const KeyValueCache& cache, const DecoderActivations& saved) const;

  /// Loss and the head's part of backward, in chunks of tokens: returns the sum of the cross-entropies in nats,
  /// writes d(grad_scale * (sum + z-losses))/d x into saved.grad_residual, accumulates the head's gradients. After
  /// forward.
  double loss_backward(const ExecSpace& exec, ConstTokenTensor2 targets, Real grad_scale,
                       const DecoderActivations& saved) const;

  /// Makes saved.blocks[l] what the last forward left of block l, where blocks share memory; not needed for the
  /// last one straight after forward. `dropout` is that of the forward pass.
  void restore_block(const ExecSpace& exec, std::size_t l, const DropoutKey& dropout,
                     const DecoderActivations& saved) const;

  /// The sum of the z-losses of the last loss_backward, nats; 0 where the model has none.
  double z_loss(const ExecSpace& exec, const DecoderActivations& saved) const;

  /// From saved.grad_residual back to the embedding: accumulates every remaining parameter gradient. Calls
  /// block_done(l) once block l and all behind it are done, from the last to the first.
  void backward(const ExecSpace& exec, ConstTokenTensor2 tokens, const DropoutKey& dropout,
                const DecoderActivations& saved, const std::function<void(int)>& block_done = {}) const;

  /// body(begin, logits(M,V) of the tokens from `begin` on) for the chunks of tokens of the last forward, in order;
  /// each takes the memory of the one before it.
  void logits_by_chunk(const ExecSpace& exec, const DecoderActivations& saved,
                       const std::function<void(long, const StoredTensor2&)>& body) const;

  /// Cross-entropies alone, into saved.losses (evaluation). Targets must lie in [0, vocabulary).
  void losses(const ExecSpace& exec, ConstTokenTensor2 targets, const DecoderActivations& saved) const;

  /// logits(N,V) of the last forward, whole: for small shapes and tests.
  void logits(const ExecSpace& exec, const DecoderActivations& saved, StoredTensor2 all_logits) const;

  const ModelConfig& model() const { return model_; }

  // Parts, for generation with a key/value cache.
  ConstStoredTensor2 token_embedding;  ///< (V,C)
  MasterTensor2 grad_token_embedding;  ///< (V,C)
  ConstMasterTensor2 positions;        ///< (T,C); empty where none
  MasterTensor2 grad_positions;        ///< (T,C); empty where none or sinusoidal
  std::vector<DecoderBlock> blocks;
  std::vector<NormalizationLayer> final_norm;  ///< one in pre-norm
  Linear head;                                 ///< a tied head shares weight and gradient with the token embedding

 private:
  void run(const ExecSpace& exec, ConstTokenTensor2 tokens, const DropoutKey& dropout,
           const DecoderActivations& saved, const KeyValueCache* cache, const FirstPositions& first) const;
  /// The logits (M,V) of the rows x(M,C), capped where the model does so.
  void head_logits(const ExecSpace& exec, const StoredTensor2& x, const StoredTensor2& logits) const;

  ModelConfig model_;
  const ParameterStore& store_;
};

}  // namespace dekoder
