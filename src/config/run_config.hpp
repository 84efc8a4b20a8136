// SPDX-License-Identifier: Apache-2.0
// Every setting of a run: default, unit and meaning on its line. The YAML keys are the member names.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "base/activation.hpp"
#include "base/norm_kind.hpp"

namespace dekoder {

enum class Positions { none, sinusoidal, learned, rotary };
enum class NormPlacement { pre, post };  ///< norm before a sublayer, or after its residual add
enum class Initialisation { gpt2, torch_linear };
enum class Schedule { constant, linear, cosine, wsd, inverse_sqrt };
enum class OptimizerKind { adamw, muon };
enum class OnNonfinite { stop, skip };
enum class Precision { fp32, bf16 };
enum class Residual { stored, fp32 };
/// What a forward pass of training keeps of each block for the backward pass.
enum class Recompute { none, block };

/// Shape of the decoder.
struct ModelConfig {
  int layers = 4;                                 ///< L, decoder blocks
  int heads = 4;                                  ///< H, of queries
  int key_value_heads = 0;                        ///< G, divides heads: H / G heads share one; 0: heads
  int head_size = 0;                              ///< D; 0: channels / heads
  int channels = 128;                             ///< C, width of the residual stream
  int feed_forward = 512;                         ///< F, width of the hidden layer of the feed-forward network
  int context = 64;                               ///< T, tokens of a training window
  int vocabulary = 0;                             ///< V, tokens known; 0: that of the token file
  int vocabulary_multiple = 64;                   ///< table rows are padded to a multiple of this
  Positions positions = Positions::learned;       ///< added to the token embedding; rotary: turns queries and keys
  double rotary_base = 10000;                     ///< of the wavelengths
  double rotary_fraction = 1;                     ///< of each head's channels that are turned, the first ones
  double rotary_factor = 1;                       ///< long wavelengths are stretched by it, as Llama 3 does; 1: not
  double rotary_low_frequency = 1;                ///< those below context / this are not short any more
  double rotary_high_frequency = 4;               ///< those below context / this stay as they are
  int rotary_original_context = 8192;             ///< the context that these two divide
  NormPlacement norm = NormPlacement::pre;        ///< pre also norms once before the head
  NormKind norm_kind = NormKind::layer;           ///< rms: neither mean nor bias
  double norm_epsilon = 1e-5;                     ///< added to the variance, or to the mean square
  std::vector<int> sliding_window;                ///< tokens that a query sees, itself included, of layers in turn;
                                                  ///< 0, or no list: all before it
  bool qk_norm = false;                           ///< RMS norm of each head's queries and keys, with gains
  Activation activation = Activation::gelu_tanh;  ///< of the feed-forward network
  bool gated = false;                             ///< its hidden layer is activation(gate) * up: SwiGLU, GeGLU
  bool bias = true;                               ///< biases in linear layers and norms
  bool tied_head = true;                          ///< head shares the token embedding's table
  double logit_soft_cap = 0;                      ///< logits become c tanh(logits / c), within -c to c; 0: not
  double dropout = 0.0;  ///< rate in [0, 1): embedding, attention weights, sublayer outputs
  Initialisation initialisation = Initialisation::gpt2;  ///< gpt2: N(0, 0.02), residual projections / sqrt(2 L)
  /// The key training.residual: what the residual stream and its gradient are kept in, which add up all blocks.
  /// float: in fp32 with bf16 too; default with norm post: stored.
  Residual residual = Residual::fp32;
  /// The key training.recompute. block: its input alone, from which the backward pass computes the rest once more.
  Recompute recompute = Recompute::none;
  /// The key training.z_loss, which evaluation leaves out: coefficient of the mean square of the log of softmax's
  /// normaliser, added to the loss. 1e-4 keeps logits from drifting away; 0: none.
  double z_loss = 0;

  int key_heads() const { return key_value_heads == 0 ? heads : key_value_heads; }  ///< G
  int head_width() const { return head_size == 0 ? channels / heads : head_size; }  ///< D
  int query_width() const { return heads * head_width(); }                          ///< H D
  int qkv_width() const { return (heads + 2 * key_heads()) * head_width(); }        ///< (H + 2 G) D
  int hidden_width() const { return gated ? 2 * feed_forward : feed_forward; }      ///< F, or 2 F
  /// Tokens that a query of layer l sees; at most the context, where it sees all.
  int window(int layer) const {
    const int tokens = sliding_window.empty() ? 0 : sliding_window[std::size_t(layer) % sliding_window.size()];
    return tokens == 0 || tokens > context ? context : tokens;
  }
  /// R, even: the channels of a head that rotary positions turn.
  int rotary_width() const { return 2 * int(rotary_fraction * head_width() / 2 + 0.5); }
};

inline constexpr std::size_t most_sources = 256;  ///< token files of a run

/// A path, or a list of paths.
struct TokenFiles : std::vector<std::string> {
  using std::vector<std::string>::vector;
};

/// Where tokens come from. Several files are a mixture, which a list says too:
/// `data: [{tokens: a.h5, weight: 0.7}, {tokens: b.h5, weight: 0.3}]`.
struct DataConfig {
  TokenFiles tokens;            ///< token files made by `dekoder prepare`; relative to the working directory
  std::vector<double> weights;  ///< of several files: their shares of the samples, in any unit; empty: as their
                                ///< training parts have windows
};

/// The optimisation.
struct TrainingConfig {
  std::uint64_t seed = 1;             ///< of initial values, data order and dropout
  long steps = 1000;                  ///< optimizer steps of the whole run
  int batch = 32;                     ///< sequences per optimizer step over all ranks
  int micro_batch = 0;                ///< B, sequences per forward and backward; divides batch; 0: batch
  double learning_rate = 1e-3;        ///< peak
  double final_learning_rate = 1e-4;  ///< at the last step of linear, cosine and wsd; default: or a tenth of the
                                      ///< peak, where that is below
  std::vector<int> batch_warmup;      ///< sequences of the first steps: each of these sizes for batch_warmup_steps
  long batch_warmup_steps = 0;
  Schedule schedule = Schedule::cosine;  ///< after warm-up
  long warmup_steps = 100;               ///< linear from 0; default: or a tenth of steps, where these are below 102
  double decay_fraction = 0.2;           ///< wsd: share of the steps that decays at the end, after the warm-up
  /// muon: the matrices of the blocks by Muon; embeddings, head, norms and biases by AdamW, at the same rate.
  OptimizerKind optimizer = OptimizerKind::adamw;
  double momentum = 0.95;     ///< Muon
  double beta1 = 0.9;         ///< AdamW
  double beta2 = 0.95;        ///< AdamW
  double epsilon = 1e-8;      ///< AdamW
  double weight_decay = 0.1;  ///< on matrices only
  double clip_norm = 1.0;     ///< largest global gradient norm; 0: no clipping
  double average = 0;         ///< decay of the parameters' moving average, which is what is evaluated; 0: none
  /// bf16: weights, activations and their gradients as products read them, in half the memory; parameters, their
  /// gradients, moments, statistics and sums stay fp32. Checkpoints are the same.
  Precision precision = Precision::fp32;
  /// What follows a step whose loss or gradients are NaN or Inf. skip: the next batch, with parameters and moments
  /// as they were.
  OnNonfinite on_nonfinite = OnNonfinite::stop;
  long skip_at_most = 10;  ///< steps of the whole run, before such a step stops it all the same
};

/// Validation loss.
struct EvaluationConfig {
  long every = 100;  ///< steps; 0: only at the end
  long tokens =
      32'768;  ///< first N tokens of the held-out part of each token file; 0: all of it. The default costs a
               ///< twentieth of the run with the other defaults: it counts forward only, a training step thrice
};

/// Text drawn from the model.
struct SamplingConfig {
  long every = 500;           ///< steps; 0: only at the end
  std::string prompt = "\n";  ///< in the text of the tokenizer
  int tokens = 200;           ///< length
  double temperature = 0.8;   ///< 0: most likely token
  int top_k = 0;              ///< keep the k most likely; 0: all
  double top_p = 1.0;         ///< keep the smallest set of this mass
  std::uint64_t seed = 1;     ///< of the draws
};

/// Saved states.
struct CheckpointConfig {
  long every = 500;  ///< steps; 0: only at the end and on a signal
  int keep = 3;      ///< newest files kept, besides the one with the least validation loss
};

/// Attention maps kept in attention/, a file per step. No texts and no windows: none. Captured are step 0, the last
/// step, and those below.
struct AttentionConfig {
  std::vector<std::string> texts;  ///< probes: texts of at most context tokens
  int windows = 0;          ///< further probes: windows spread evenly over the held-out part; of several token
                            ///< files, over those in turn
  int window_tokens = 0;    ///< length of a window; 0: context
  std::vector<int> layers;  ///< counted from 0; empty: all
  std::vector<int> heads;   ///< counted from 0; empty: all
  long every = 500;         ///< steps; 0: none but those listed
  std::vector<long> steps;  ///< further steps
  int max_megabytes = 256;  ///< the run does not start where the maps could take more, uncompressed
};

/// One run.
struct RunConfig {
  ModelConfig model;
  DataConfig data;
  TrainingConfig training;
  EvaluationConfig evaluation;
  SamplingConfig sampling;
  CheckpointConfig checkpoint;
  AttentionConfig attention;

  /// Sequences of the step that comes after `step` others.
  int batch_of(long step) const {
    const auto& sizes = training.batch_warmup;
    const long stage = sizes.empty() ? 0 : step / training.batch_warmup_steps;
    return stage < long(sizes.size()) ? sizes[std::size_t(stage)] : training.batch;
  }
  /// Sequences of the first `steps` steps together.
  std::uint64_t samples_before(long steps) const {
    std::uint64_t samples = 0;
    for (const int size : training.batch_warmup) {
      const long taken = std::min(steps, training.batch_warmup_steps);
      samples += std::uint64_t(taken) * std::uint64_t(size);
      steps -= taken;
    }
    return samples + std::uint64_t(steps) * std::uint64_t(training.batch);
  }
  int micro_batch() const { return training.micro_batch == 0 ? training.batch : training.micro_batch; }
};

}  // namespace dekoder
