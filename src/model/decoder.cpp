// SPDX-License-Identifier: Apache-2.0
#include "model/decoder.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/embedding.hpp"
#include "kernels/gemm.hpp"
#include "kernels/reduction.hpp"
#include "tensor/region.hpp"

namespace dekoder {

namespace {

bool head_has_bias(const ModelConfig& model) {
  return model.bias && !model.tied_head;
}

Linear make_head(const ModelConfig& model, const ParameterStore& store) {
  if (!model.tied_head) return Linear(store, "head", model.bias);
  return Linear(store, "token_embedding", false);
}

/// The output of the last block: what the head reads.
StoredTensor2 final_output(const DecoderActivations& saved) {
  return saved.final_norm.empty() ? saved.blocks.back().feed_forward_norm.y : saved.final_norm.front().y;
}

LossTerms loss_terms(const ModelConfig& model) {
  return {Real(model.z_loss), Real(model.logit_soft_cap)};
}

/// body(begin, end, logits of these tokens) for consecutive chunks of tokens.
template <class Body>
void for_each_chunk(const DecoderActivations& saved, const Body& body) {
  const long N = long(saved.losses.extent(0)), M = long(saved.logits.extent(0));
  for (long begin = 0; begin < N; begin += M) {
    const long end = std::min(begin + M, N);
    body(begin, end, rows(saved.logits, 0, end - begin));
  }
}

}  // namespace

int padded_vocabulary(const ModelConfig& model) {
  const int multiple = model.vocabulary_multiple;
  return (model.vocabulary + multiple - 1) / multiple * multiple;
}

std::size_t padding_parameters(const ModelConfig& model) {
  const std::size_t tables = model.tied_head ? 1 : 2;
  return tables * std::size_t(padded_vocabulary(model) - model.vocabulary) * std::size_t(model.channels);
}

long head_chunk(const ModelConfig& model, long tokens, bool on_host) {
  const std::size_t most_elements = std::size_t{on_host ? 64u : 256u} << 20;
  const long most_tokens = on_host ? tokens : std::min(tokens, long{16384});
  long chunk = 16;
  while (chunk < most_tokens &&
         std::size_t(2) * std::size_t(chunk) * std::size_t(padded_vocabulary(model)) <= most_elements)
    chunk *= 2;
  return std::min(chunk, tokens);
}

ParameterLayout decoder_parameters(const ModelConfig& model) {
  const int V = padded_vocabulary(model), C = model.channels;
  const bool gpt2 = model.initialisation == Initialisation::gpt2;
  const InitialValues embedding_values{InitialValues::Kind::normal, gpt2 ? 0.02 : 1.0};
  ParameterLayout layout;
  layout.add("token_embedding.weight", "V,C", {V, C}, true, embedding_values);
  if (model.positions == Positions::learned)
    layout.add("position_embedding.weight", "T,C", {model.context, C}, true, embedding_values);
  for (int l = 0; l < model.layers; ++l) DecoderBlock::declare(layout, block_name(l), model);
  if (model.norm == NormPlacement::pre) NormalizationLayer::declare(layout, "final_norm", model);
  if (!model.tied_head) {
    const InitialValues uniform{InitialValues::Kind::uniform, 1.0 / std::sqrt(double(C))};
    const InitialValues weights = gpt2 ? InitialValues{InitialValues::Kind::normal, 0.02} : uniform;
    Linear::declare(layout, "head", "V,C", V, C, model.bias, weights, gpt2 ? InitialValues{} : uniform);
  }
  return layout;
}

ParameterLayout run_parameters(const RunConfig& config) {
  const auto by_muon = [&](const ParameterEntry& entry) {
    return config.training.optimizer == OptimizerKind::muon && entry.name.starts_with("blocks.") &&
           entry.shape.size() == 2;
  };
  return decoder_parameters(config.model)
      .for_update(by_muon, std::size_t(reduction_leaf), config.training.average > 0);
}

std::vector<HiddenMatrix> hidden_matrices(const ModelConfig& model, const ParameterLayout& layout) {
  const int keys = model.key_heads() * model.head_width();
  std::vector<HiddenMatrix> matrices;
  for (const ParameterEntry& entry : layout.entries()) {
    if (!entry.whole) continue;
    std::vector<int> parts = {entry.shape[0]};
    if (entry.name.ends_with(".qkv.weight")) parts = {model.query_width(), keys, keys};
    if (entry.name.ends_with(".gate_up.weight")) parts = {model.feed_forward, model.feed_forward};
    std::size_t offset = entry.offset;
    for (const int rows : parts) {
      matrices.push_back({offset, rows, entry.shape[1]});
      offset += matrices.back().size();
    }
  }
  return matrices;
}

std::vector<std::size_t> backward_borders(const ParameterLayout& layout, int layers) {
  std::vector<std::size_t> borders;
  for (int l = 0; l < layers; ++l) {
    const std::string prefix = block_name(l) + ".";
    const auto first = std::find_if(layout.entries().begin(), layout.entries().end(),
                                    [&](const ParameterEntry& entry) { return entry.name.starts_with(prefix); });
    borders.push_back(first->offset);
  }
  const std::string last = block_name(layers - 1) + ".";
  const auto behind = std::find_if(layout.entries().rbegin(), layout.entries().rend(),
                                   [&](const ParameterEntry& entry) { return entry.name.starts_with(last); });
  borders.push_back(behind == layout.entries().rbegin() ? layout.flat_size() : behind.base()->offset);
  return borders;
}

std::vector<BlockActivations> DecoderActivations::take_blocks(ActivationArena& arena, const ModelConfig& model,
                                                              int sequences, ActivationUse use) {
  std::vector<BlockActivations> all;
  for (int l = 0; l < model.layers; ++l) {
    if (l == 0 || (use == ActivationUse::training && model.recompute == Recompute::none)) {
      all.emplace_back(arena, block_name(l), model, sequences);
      continue;
    }
    if (use == ActivationUse::training) {
      all.emplace_back(arena, block_name(l), model, sequences, all.front());
      continue;
    }
    all.push_back(all.front());
    if (use == ActivationUse::attention_maps)
      all.back().attention = AttentionActivations(arena, block_name(l) + ".attention", sequences, model);
  }
  return all;
}

DecoderActivations::DecoderActivations(ActivationArena& arena, const ModelConfig& model, int sequences,
                                       ActivationUse use)
    : blocks(take_blocks(arena, model, sequences, use)), scratch(arena, model, sequences, use) {
  const long N = long(sequences) * model.context, M = head_chunk(model, N);
  const int C = model.channels, V = padded_vocabulary(model);
  if (model.norm == NormPlacement::pre) {
    embedded = blocks.front().attention_norm.sum;
    final_norm.emplace_back(arena, "final_norm", N, C, residual_as_master(model));
  } else {
    embedded = arena.take<StoredTensor2>("embedded", "N,C", N, C);
  }
  if (use == ActivationUse::cache) return;
  logits = arena.take<StoredTensor2>("logits.chunk", "M,V", M, V);
  losses = arena.take<MasterTensor1>("losses", "N", N);
  if (use != ActivationUse::training) return;
  if (model.z_loss > 0) z_losses = arena.take<MasterTensor1>("z_losses", "N", N);
  if (head_has_bias(model))
    head_partials = arena.take<MasterTensor2>("scratch.head_partials", "P,V", row_blocks(M), V);
  grad_residual = ResidualTensor2::take(arena, "grad_residual", N, C, residual_as_master(model));
  row_begin = arena.take<IntTensor1>("scratch.row_begin", "V+1", V + 1L);
  row_tokens = arena.take<IntTensor1>("scratch.row_tokens", "N", N);
  if (const long elements = token_sort_elements(N); elements > 0)
    merged_tokens = arena.take<IntTensor1>("scratch.merged_tokens", "N", elements);
  partials = arena.take<AccumulatorTensor1>("scratch.loss_partials", "P", reduction_leaves(std::size_t(N)));
}

KeyValueCache::KeyValueCache(const ModelConfig& model, int sequences)
    : sums("keys_values.sums", std::size_t(sequences), std::size_t(model.heads), std::size_t(model.head_width())) {
  for (int l = 0; l < model.layers; ++l)
    blocks.emplace_back(block_name(l) + ".keys_values", sequences, 2, model.key_heads(), model.context,
                        model.head_width());
}

KeyValueCache KeyValueCache::sequence(int b) const {
  KeyValueCache one;
  one.sums = Kokkos::subview(sums, Kokkos::make_pair(b, b + 1), Kokkos::ALL, Kokkos::ALL);
  for (const StoredTensor5& all : blocks)
    one.blocks.emplace_back(all.data() + std::size_t(b) * all.stride(0), 1, 2, all.extent(2), all.extent(3),
                            all.extent(4));
  return one;
}

Decoder::Decoder(const ModelConfig& model, const ParameterStore& store)
    : token_embedding(store.weight2("token_embedding.weight")),
      grad_token_embedding(store.gradient2("token_embedding.weight")),
      head(make_head(model, store)),
      model_(model),
      store_(store) {
  if (model.positions == Positions::learned) {
    positions = store.value2("position_embedding.weight");
    grad_positions = store.gradient2("position_embedding.weight");
  } else if (model.positions == Positions::sinusoidal) {
    const MasterTensor2 table("sinusoidal_positions", std::size_t(model.context), std::size_t(model.channels));
    sinusoidal_positions(ExecSpace(), table);
    positions = table;
  }
  const RotaryTable rotary(model);
  for (int l = 0; l < model.layers; ++l) blocks.emplace_back(store, block_name(l), model, rotary, l);
  if (model.norm == NormPlacement::pre) final_norm.emplace_back(store, "final_norm", model);
}

void Decoder::forward(const ExecSpace& exec, ConstTokenTensor2 tokens, const DropoutKey& dropout,
                      const DecoderActivations& saved) const {
  run(exec, tokens, dropout, saved, nullptr, 0);
}

void Decoder::prefill(const ExecSpace& exec, ConstTokenTensor2 tokens, const KeyValueCache& cache,
                      const DecoderActivations& saved) const {
  run(exec, tokens, DropoutKey{}, saved, &cache, 0);
}

void Decoder::forward_cached(const ExecSpace& exec, ConstTokenTensor2 token, const FirstPositions& at,
                             const KeyValueCache& cache, const DecoderActivations& saved) const {
  run(exec, token, DropoutKey{}, saved, &cache, at);
}

void Decoder::run(const ExecSpace& exec, ConstTokenTensor2 tokens, const DropoutKey& dropout,
                  const DecoderActivations& saved, const KeyValueCache* cache, const FirstPositions& first) const {
  const Region region("forward");
  store_.refresh_weights(exec);
  const bool one_by_one = cache != nullptr && tokens.extent(1) == 1;
  {
    const Region of_embedding("embedding");
    embedding(exec, tokens, token_embedding, positions, first, dropout.at(0), saved.embedded);
  }
  ResidualStream x{saved.embedded, {}, {}};
  for (std::size_t l = 0; l < blocks.size(); ++l) {
    const std::optional<CachedKeysValues> cached =
        one_by_one ? std::optional(CachedKeysValues{cache->blocks[l], cache->sums, first}) : std::nullopt;
    x = blocks[l].forward(exec, x, dropout, saved.blocks[l], saved.scratch, cached ? &*cached : nullptr);
    if (cache != nullptr && !one_by_one)
      fill_cache(exec, blocks[l].attention.attended_heads(saved.blocks[l].attention, saved.scratch.attention),
                 cache->blocks[l]);
  }
  if (!final_norm.empty())
    final_norm.front().forward(exec, x.residual, x.delta, x.dropout, tokens.extent_int(1),
                               saved.final_norm.front());
}

void Decoder::head_logits(const ExecSpace& exec, const StoredTensor2& x, const StoredTensor2& logits) const {
  head.forward(exec, x, logits);
  if (model_.logit_soft_cap > 0) soft_cap(exec, Real(model_.logit_soft_cap), logits);
}

double Decoder::z_loss(const ExecSpace& exec, const DecoderActivations& saved) const {
  return model_.z_loss > 0 ? sum(exec, saved.z_losses, saved.partials) : 0;
}

double Decoder::loss_backward(const ExecSpace& exec, ConstTokenTensor2 targets, Real grad_scale,
                              const DecoderActivations& saved) const {
  const Region region("head");
  const StoredTensor2 x = final_output(saved);
  const StoredTensor2 grad_x = final_norm.empty() ? saved.grad_residual.stored() : saved.scratch.grad_branch;
  const auto target = reshape<ConstTokenTensor1>(targets, targets.size());
  for_each_chunk(saved, [&](long begin, long end, const StoredTensor2& logits) {
    const StoredTensor2 x_rows = rows(x, begin, end), grad_rows = rows(grad_x, begin, end);
    head_logits(exec, x_rows, logits);
    cross_entropy(exec, rows(target, begin, end), model_.vocabulary, grad_scale, logits,
                  rows(saved.losses, begin, end), loss_terms(model_),
                  model_.z_loss > 0 ? rows(saved.z_losses, begin, end) : saved.z_losses);
    head.backward_bias(exec, logits, saved.head_partials);
    head.backward(exec, x_rows, logits, GradientWrite::overwrite, grad_rows);
  });
  if (!final_norm.empty())
    final_norm.front().backward(exec, saved.final_norm.front(), grad_x, GradientWrite::overwrite,
                                saved.grad_residual, saved.scratch.norm_partials);
  return sum(exec, saved.losses, saved.partials);
}

void Decoder::restore_block(const ExecSpace& exec, std::size_t l, const DropoutKey& dropout,
                            const DecoderActivations& saved) const {
  if (!saved.shared()) return;
  const Region region("recompute");
  const ResidualTensor2 input = l == 0 ? saved.embedded : ResidualTensor2(saved.blocks[l - 1].feed_forward_norm.y);
  blocks[l].recompute(exec, input, dropout, saved.blocks[l], saved.scratch);
}

void Decoder::backward(const ExecSpace& exec, ConstTokenTensor2 tokens, const DropoutKey& dropout,
                       const DecoderActivations& saved, const std::function<void(int)>& block_done) const {
  const Region region("backward");
  for (std::size_t l = blocks.size(); l-- > 0;) {
    if (l + 1 < blocks.size()) restore_block(exec, l, dropout, saved);
    const StoredTensor2 input = l == 0 ? saved.embedded.stored() : saved.blocks[l - 1].feed_forward_norm.y;
    blocks[l].backward(exec, input, dropout, saved.blocks[l], saved.scratch, saved.grad_residual);
    if (block_done) block_done(int(l));
  }
  const Region region_of_embedding("embedding");
  const Dropout of_embedding = dropout.at(0);
  const int T = tokens.extent_int(1);
  if (of_embedding.active()) apply_dropout(exec, saved.grad_residual, of_embedding, T, saved.grad_residual);
  embedding_backward(exec, tokens, saved.grad_residual, grad_token_embedding, saved.row_begin, saved.row_tokens,
                     saved.merged_tokens);
  if (grad_positions.size() > 0) position_backward(exec, saved.grad_residual, T, grad_positions);
}

void Decoder::logits_by_chunk(const ExecSpace& exec, const DecoderActivations& saved,
                              const std::function<void(long, const StoredTensor2&)>& body) const {
  const Region region("head");
  const StoredTensor2 x = final_output(saved);
  for_each_chunk(saved, [&](long begin, long end, const StoredTensor2& logits) {
    head_logits(exec, rows(x, begin, end), logits);
    body(begin, logits);
  });
}

void Decoder::losses(const ExecSpace& exec, ConstTokenTensor2 targets, const DecoderActivations& saved) const {
  const auto target = reshape<ConstTokenTensor1>(targets, targets.size());
  logits_by_chunk(exec, saved, [&](long begin, const StoredTensor2& logits) {
    const long end = begin + logits.extent_int(0);
    cross_entropy_loss(exec, rows(target, begin, end), model_.vocabulary, logits, rows(saved.losses, begin, end));
  });
}

void Decoder::logits(const ExecSpace& exec, const DecoderActivations& saved, StoredTensor2 all_logits) const {
  const Region region("head");
  head_logits(exec, final_output(saved), all_logits);
}

}  // namespace dekoder
