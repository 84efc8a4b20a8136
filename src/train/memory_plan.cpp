// SPDX-License-Identifier: Apache-2.0
#include "train/memory_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/decimal.hpp"
#include "inference/attention_capture.hpp"
#include "io/run/checkpoint.hpp"
#include "kernels/attention/attention.hpp"
#include "kernels/gemm.hpp"
#include "kernels/reduction.hpp"
#include "model/decoder.hpp"
#include "model/model_summary.hpp"
#include "tensor/decay_block.hpp"
#include "train/background_save.hpp"
#include "train/training_model.hpp"

namespace dekoder {

namespace {

/// What Kokkos takes for a tensor: whole words of 8 bytes.
std::size_t allocated(std::size_t elements, std::size_t element_bytes) {
  return (elements * element_bytes + 7) / 8 * 8;
}

/// What Kokkos adds to the scratch memory of a thread, at most.
constexpr std::size_t kokkos_scratch = 32 * 1024;

/// Generator: activations of one token, keys and values of a whole context, the token and its position.
std::size_t generator_bytes(const ModelConfig& model) {
  ModelConfig one_token = model;
  one_token.context = 1;
  return activation_bytes(one_token, 1, ActivationUse::losses) +
         std::size_t(model.layers) * allocated(2 * std::size_t(model.key_heads()) *
                                                   std::size_t(model.head_width()) * std::size_t(model.context),
                                               sizeof(Stored)) +
         allocated(std::size_t(model.query_width()), sizeof(Master)) + allocated(1, sizeof(Token)) +
         allocated(1, sizeof(int));
}

/// What the generator reads in one pass, at most: the prompt, which has no more tokens than bytes, or the newer
/// half of the context.
std::size_t prefill_bytes(const RunConfig& config) {
  const int T = config.model.context;
  const int prompt = int(std::min(config.sampling.prompt.size(), std::size_t(T)));
  ModelConfig at_once = config.model;
  at_once.context = std::max({1, T / 2, prompt - 1});
  return activation_bytes(at_once, 1, ActivationUse::cache) +
         allocated(std::size_t(at_once.context), sizeof(Token));
}

/// AttentionCapture, at most: a text has no more tokens than bytes, and each of its four buffers is whole words.
std::size_t attention_bytes(const RunConfig& config) {
  const AttentionConfig& attention = config.attention;
  if (attention.texts.empty() && attention.windows == 0) return 0;
  const std::size_t T = std::size_t(config.model.context);
  std::size_t longest = 0;
  if (attention.windows > 0) longest = attention.window_tokens == 0 ? T : std::size_t(attention.window_tokens);
  for (const std::string& text : attention.texts) longest = std::max(longest, std::min(text.size(), T));
  return attention_capture_bytes(std::size_t(config.micro_batch()), T, longest) + 4 * 8;
}

/// Of the largest first factor, second factor, result and bias of a step where products_take_copies().
std::size_t product_copies_bytes(const RunConfig& config) {
  const ModelConfig& model = config.model;
  const std::size_t C = std::size_t(model.channels),
                    narrow = std::size_t(std::max({model.channels, model.query_width(), model.feed_forward})),
                    widest = std::size_t(std::max({model.channels, model.qkv_width(), model.hidden_width()})),
                    V = std::size_t(padded_vocabulary(model)),
                    N = std::size_t(config.micro_batch()) * std::size_t(model.context),
                    chunk = std::size_t(head_chunk(model, long(N)));
  const std::size_t rows = std::max(N * widest, chunk * V);
  const std::size_t second = std::max({widest * C, V * C, N * narrow, narrow * C});
  return (2 * rows + second + (model.bias ? std::max(widest, model.tied_head ? 0 : V) : 0)) * sizeof(Real);
}

/// "blocks", "scratch", "logits": the first word of a name.
std::string first_word(const std::string& name) {
  return name.substr(0, name.find('.'));
}

std::vector<MemoryTerm> activation_terms(const ModelConfig& model, int sequences) {
  ActivationArena arena;
  DecoderActivations(arena, model, sequences);
  std::map<std::string, std::size_t> words;
  std::size_t named = 0;
  for (const ArenaEntry& entry : arena.entries()) {
    words[first_word(entry.name)] += entry.bytes;
    named += entry.bytes;
  }
  std::vector<MemoryTerm> terms;
  for (const auto& [word, bytes] : words) terms.push_back({"activations: " + word, bytes});
  terms.push_back({"activations: gaps", arena.bytes() - named});
  return terms;
}

/// What depends on the share of a rank.
std::vector<MemoryTerm> memory_of_share(const RunConfig& config, const ParameterLayout& layout,
                                        const Shards& shards, int rank) {
  const std::size_t owned = shards.owned_elements(rank);
  std::size_t sums = 0;
  for (const long leaves : leaves_of_steps(config))
    sums = std::max(sums, GradientReducer::memory(shards, leaves, rank));
  return {{"first moment", owned * sizeof(Master)},
          {"second moment", elements_of(without(shards.owned(rank), shards.whole())) * sizeof(Master)},
          {"average", layout.averaged() ? owned * sizeof(Master) : 0},
          {"sums of micro-batches", sums},
          {"copy of the state, to be saved", BackgroundSave::copy_bytes(shards, layout, rank)},
          {"state of other ranks, to be saved", rank == 0 ? BackgroundSave::arrival_bytes(shards, layout) : 0}};
}

/// That of the rank where it is most: Muon's whole matrices and sums of micro-batches cannot be shared out evenly,
/// and rank 0 gathers what is saved.
std::vector<MemoryTerm> memory_of_largest_share(const RunConfig& config, const ParameterLayout& layout,
                                                const Shards& shards) {
  std::vector<MemoryTerm> most = memory_of_share(config, layout, shards, 0);
  for (int rank = 1; rank < shards.ranks(); ++rank)
    if (std::vector<MemoryTerm> terms = memory_of_share(config, layout, shards, rank);
        bytes_of(terms) > bytes_of(most))
      most = std::move(terms);
  return most;
}

}  // namespace

std::vector<MemoryTerm> training_memory(const RunConfig& config, int threads, int ranks) {
  require_work_for_all(config, ranks);
  const ModelConfig& model = config.model;
  const int B = config.micro_batch(), C = model.channels, T = model.context;
  const std::size_t tokens = allocated(std::size_t(B) * std::size_t(T), sizeof(Token));
  const ParameterLayout layout = run_parameters(config);
  const std::size_t flat = layout.flat_size();
  std::vector<MemoryTerm> terms = {
      {"values", flat * sizeof(Master)},
      {"gradients", flat * sizeof(Master)},
      {"weight decay flags", allocated(flat / decay_block, 1)},
      {"partial sums of the norm", std::size_t(reduction_leaves(flat)) * sizeof(Accumulator)},
  };
  for (MemoryTerm& term : memory_of_largest_share(config, layout, shards_of(model, layout, ranks)))
    if (term.bytes > 0) terms.push_back(std::move(term));
  if (stored_is_short) terms.push_back({"weights", flat * sizeof(Stored)});
  if (const auto [elements, shorter] = largest_matrix(hidden_matrices(model, layout)); elements > 0)
    terms.push_back({"matrices of Muon",
                     2 * (allocated(elements, sizeof(Stored)) + allocated(shorter * shorter, sizeof(Stored)))});
  if (model.positions == Positions::sinusoidal)
    terms.push_back({"sinusoidal positions", allocated(std::size_t(T) * std::size_t(C), sizeof(Master))});
  if (model.positions == Positions::rotary)
    terms.push_back({"rotary positions",
                     2 * allocated(std::size_t(T) * std::size_t(model.rotary_width() / 2), sizeof(Master))});
  for (MemoryTerm& term : activation_terms(model, B)) terms.push_back(std::move(term));
  terms.push_back({"tokens of a micro-batch", 2 * tokens});
  terms.push_back({"tokens made ahead", 4 * tokens});
  terms.push_back({"tokens of an evaluation", 4 * tokens});
  terms.push_back({"generator", generator_bytes(model)});
  terms.push_back({"prompt of the generator, at most", prefill_bytes(config)});
  if (const std::size_t bytes = attention_bytes(config); bytes > 0)
    terms.push_back({"attention maps, at most", bytes});
  if (const std::size_t bytes = product_workspace_bytes(); bytes > 0)
    terms.push_back({"workspace of matrix products", bytes});
  if (products_take_copies()) terms.push_back({"copies of factors of products", product_copies_bytes(config)});
  const std::size_t scratch = attention_scratch_bytes(threads, B, T, model.key_heads(), model.head_width());
  if (scratch > 0)
    terms.push_back({fmt::format("scratch of {} threads, at most", threads),
                     std::size_t(threads) * (scratch + kokkos_scratch)});
  return terms;
}

void require_work_for_all(const RunConfig& config, int ranks) {
  const long leaves = std::ranges::min(leaves_of_steps(config));
  if (ranks > leaves)
    throw ConfigError(
        "{} ranks for {} micro-batches of a step ({} {} / training.micro_batch {}): a rank computes whole "
        "micro-batches; start at most {} ranks, or lower training.micro_batch",
        ranks, leaves,
        config.training.batch_warmup.empty() ? "training.batch" : "the least of training.batch_warmup",
        leaves * config.micro_batch(), config.micro_batch(), leaves);
}

std::uint64_t bytes_of(const std::vector<MemoryTerm>& terms) {
  std::uint64_t bytes = 0;
  for (const MemoryTerm& term : terms) bytes += term.bytes;
  return bytes;
}

std::string training_memory_text(const RunConfig& config, const std::vector<MemoryTerm>& terms, int ranks) {
  std::string text =
      ranks == 1 ? "memory by term\n" : fmt::format("memory by term, of each of {} ranks, at most\n", ranks);
  const auto line = [&](const std::string& name, std::uint64_t bytes) {
    text += fmt::format("  {:<32} {:>16} B {:>12}\n", name, bytes, bytes_text(bytes));
  };
  for (const MemoryTerm& term : terms) line(term.name, term.bytes);
  line("together", bytes_of(terms));
  return text + fmt::format("checkpoint file      {:>12}\n", bytes_text(checkpoint_bytes(run_parameters(config))));
}

}  // namespace dekoder
