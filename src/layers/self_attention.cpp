// SPDX-License-Identifier: Apache-2.0
#include "layers/self_attention.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/elementwise.hpp"
#include "tensor/region.hpp"

namespace dekoder {

namespace {

/// (N,HD) as (B,T,H,D).
StoredTensor4 as_heads(const StoredTensor2& x, const MasterTensor3& lse) {
  const int B = lse.extent_int(0), H = lse.extent_int(1), T = lse.extent_int(2);
  return reshape<StoredTensor4>(x, B, T, H, x.extent_int(1) / H);
}

/// Names of the axes: "3C" and "C" where each head of queries has its own keys and the heads make up the channels.
bool is_plain(const ModelConfig& model) {
  return model.key_heads() == model.heads && model.query_width() == model.channels;
}
std::string qkv_axis(const ModelConfig& model) {
  return is_plain(model) ? "3C" : "(H+2G)D";
}
std::string query_axis(const ModelConfig& model) {
  return is_plain(model) ? "C" : "HD";
}

std::string normed_axis(const ModelConfig& model) {
  return is_plain(model) ? "2C" : "(H+G)D";
}

}  // namespace

AttentionActivations::AttentionActivations(ActivationArena& arena, const std::string& name, int sequences,
                                           const ModelConfig& model)
    : qkv(arena.take<StoredTensor2>(name + ".qkv", "N," + qkv_axis(model), long(sequences) * model.context,
                                    model.qkv_width())),
      attended(arena.take<StoredTensor2>(name + ".attended", "N," + query_axis(model),
                                         long(sequences) * model.context, model.query_width())),
      lse(arena.take<MasterTensor3>(name + ".lse", "B,H,T", sequences, model.heads, model.context)) {}

AttentionScratch::AttentionScratch(ActivationArena& arena, int sequences, const ModelConfig& model,
                                   bool with_gradients) {
  const long N = long(sequences) * model.context;
  if (const std::size_t elements = attention_score_elements(sequences, model.context, model.key_heads());
      elements > 0)
    scores = arena.take<MasterTensor1>("scratch.attention_scores", "S", elements);
  const int W = model.qkv_width(), K = model.key_heads() * model.head_width();
  if (model.qk_norm)
    normed = arena.take<StoredTensor2>("scratch.normed", "N," + normed_axis(model), N, model.query_width() + K);
  if (!with_gradients) return;
  grad_qkv = arena.take<StoredTensor2>("scratch.grad_qkv", "N," + qkv_axis(model), N, W);
  grad_attended =
      arena.take<StoredTensor2>("scratch.grad_attended", "N," + query_axis(model), N, model.query_width());
  delta = arena.take<MasterTensor3>("scratch.attention_delta", "B,H,T", sequences, model.heads, model.context);
  partials = arena.take<MasterTensor2>("scratch.attention_partials", "P," + qkv_axis(model), row_blocks(N),
                                       std::max(W, model.channels));
}

double rotary_frequency(const ModelConfig& model, int i) {
  const double frequency = std::pow(model.rotary_base, -2.0 * i / model.rotary_width());
  const double turns = model.rotary_original_context * frequency / (2 * std::numbers::pi);  // context / wavelength
  if (model.rotary_factor == 1 || turns > model.rotary_high_frequency) return frequency;
  if (turns < model.rotary_low_frequency) return frequency / model.rotary_factor;
  const double kept =
      (turns - model.rotary_low_frequency) / (model.rotary_high_frequency - model.rotary_low_frequency);
  return (1 - kept) * frequency / model.rotary_factor + kept * frequency;
}

RotaryTable::RotaryTable(const ModelConfig& model) {
  if (model.positions != Positions::rotary) return;
  const std::size_t T = std::size_t(model.context), half = std::size_t(model.rotary_width() / 2);
  cosines = MasterTensor2("rotary.cosines", T, half);
  sines = MasterTensor2("rotary.sines", T, half);
  rotary_table(ExecSpace(), [&](int i) { return rotary_frequency(model, i); }, cosines, sines);
}

void SelfAttention::declare(ParameterLayout& layout, const std::string& prefix, const ModelConfig& model,
                            InitialValues qkv_values, InitialValues output_values, InitialValues bias_values) {
  const int C = model.channels;
  Linear::declare(layout, prefix + ".qkv", qkv_axis(model) + ",C", model.qkv_width(), C, model.bias, qkv_values,
                  bias_values);
  if (model.qk_norm)
    for (const char* norm : {".query_norm.gain", ".key_norm.gain"})
      layout.add(prefix + norm, "D", {model.head_width()}, false, {InitialValues::Kind::constant, 1.0});
  Linear::declare(layout, prefix + ".output", "C," + query_axis(model), C, model.query_width(), model.bias,
                  output_values, bias_values);
}

SelfAttention::SelfAttention(const ParameterStore& store, const std::string& prefix, const ModelConfig& model,
                             const RotaryTable& rotary_, int layer)
    : qkv(store, prefix + ".qkv", model.bias),
      output(store, prefix + ".output", model.bias),
      heads(model.heads),
      key_heads(model.key_heads()),
      form(Real(1.0 / std::sqrt(double(model.head_width()))), model.window(layer)),
      rotary(rotary_),
      norm_epsilon(Real(model.norm_epsilon)) {
  if (!model.qk_norm) return;
  query_gain = store.value1(prefix + ".query_norm.gain");
  key_gain = store.value1(prefix + ".key_norm.gain");
  grad_query_gain = store.gradient1(prefix + ".query_norm.gain");
  grad_key_gain = store.gradient1(prefix + ".key_norm.gain");
}

void SelfAttention::norm_and_turn(const ExecSpace& exec, const StoredTensor2& qkv_rows, const FirstPositions& first,
                                  int tokens, const StoredTensor2& normed) const {
  if (has_norm())
    norm_heads(exec, qkv_rows, heads, query_gain, key_gain, norm_epsilon, place(first, tokens), normed);
  else if (rotary.cosines.size() > 0)
    turn_heads(exec, qkv_rows, heads + key_heads, qkv_rows.extent_int(1) / (heads + 2 * key_heads), rotary.cosines,
               rotary.sines, first, tokens, Turn::forward);
}

Heads SelfAttention::attended_heads(const AttentionActivations& saved, const AttentionScratch& scratch) const {
  const int B = saved.lse.extent_int(0);
  const Heads all = split_heads(saved.qkv, B, heads, key_heads);
  if (!has_norm()) return all;
  const int D = all.query.extent_int(3);
  return {heads_of_rows(scratch.normed, B, D, 0, heads), heads_of_rows(scratch.normed, B, D, heads, key_heads),
          all.value};
}

void SelfAttention::forward(const ExecSpace& exec, ConstStoredTensor2 x, const Dropout& weight_dropout,
                            const AttentionActivations& saved, const AttentionScratch& scratch, StoredTensor2 y,
                            const CachedKeysValues* cached) const {
  const Region region("attention");
  qkv.forward(exec, x, saved.qkv);
  norm_and_turn(exec, saved.qkv, cached == nullptr ? FirstPositions(0) : cached->positions, saved.lse.extent_int(2),
                scratch.normed);
  const Heads all = attended_heads(saved, scratch);
  const StoredTensor4 attended = as_heads(saved.attended, saved.lse);
  if (cached != nullptr)
    cached_attention(exec, all, cached->positions, form, cached->cache, cached->sums, attended);
  else
    causal_attention(exec, all, form, weight_dropout, attended, saved.lse, scratch.scores);
  output.forward(exec, saved.attended, y);
}

void SelfAttention::backward(const ExecSpace& exec, ConstStoredTensor2 x, const Dropout& weight_dropout,
                             const AttentionActivations& saved, ConstStoredTensor2 grad_y,
                             const AttentionScratch& scratch, GradientWrite write, StoredTensor2 grad_x) const {
  const Region region("attention");
  const int B = saved.lse.extent_int(0), T = saved.lse.extent_int(2);
  const std::size_t P = scratch.partials.extent(0);
  output.backward_bias(exec, grad_y, MasterTensor2(scratch.partials.data(), P, x.extent(1)));
  output.backward(exec, saved.attended, grad_y, GradientWrite::overwrite, scratch.grad_attended);
  if (has_norm()) norm_and_turn(exec, saved.qkv, 0, T, scratch.normed);
  causal_attention_backward(exec, attended_heads(saved, scratch), as_heads(saved.attended, saved.lse),
                            as_heads(scratch.grad_attended, saved.lse), saved.lse, form, weight_dropout,
                            scratch.delta, split_heads(scratch.grad_qkv, B, heads, key_heads), scratch.scores);
  const int D = scratch.grad_qkv.extent_int(1) / (heads + 2 * key_heads), turned = heads + key_heads;
  if (has_norm())
    norm_heads_backward(exec, saved.qkv, heads, key_heads, query_gain, key_gain, norm_epsilon, place(0, T),
                        scratch.grad_qkv, grad_query_gain, grad_key_gain,
                        MasterTensor2(scratch.partials.data(), P * std::size_t(turned), std::size_t(D)));
  else if (rotary.cosines.size() > 0)
    turn_heads(exec, scratch.grad_qkv, turned, D, rotary.cosines, rotary.sines, 0, T, Turn::backward);
  qkv.backward_bias(exec, scratch.grad_qkv, MasterTensor2(scratch.partials.data(), P, scratch.grad_qkv.extent(1)));
  qkv.backward(exec, x, scratch.grad_qkv, write, grad_x);
}

void SelfAttention::weights(const ExecSpace& exec, const AttentionActivations& saved,
                            const AttentionScratch& scratch, int sequence, int first_head,
                            MasterTensor3 weights) const {
  const int B = saved.lse.extent_int(0), T = saved.lse.extent_int(2), row = sequence * heads + first_head;
  const auto tokens = Kokkos::make_pair(0, weights.extent_int(1));
  const int P = weights.extent_int(0), shared = heads / key_heads;
  if (P != 1 && (P % shared != 0 || first_head % shared != 0))
    throw ShapeError(
        fmt::format("SelfAttention::weights: heads {} to {}; expected one, or all of the {} that share keys",
                    first_head, first_head + P - 1, shared));
  const auto some = Kokkos::make_pair(first_head, first_head + P);
  const auto some_keys = Kokkos::make_pair(first_head / shared, (first_head + P - 1) / shared + 1);
  if (has_norm()) {  // which scratch has of the last block alone
    const long begin = long(sequence) * T, end = begin + weights.extent_int(1);
    norm_and_turn(exec, rows(saved.qkv, begin, end), 0, T, rows(scratch.normed, begin, end));
  }
  const Heads all = attended_heads(saved, scratch);
  const auto lse = reshape<ConstMasterTensor2>(saved.lse, long(B) * heads, T);
  attention_weights(exec, Kokkos::subview(all.query, sequence, tokens, some, Kokkos::ALL),
                    Kokkos::subview(all.key, sequence, tokens, some_keys, Kokkos::ALL),
                    Kokkos::subview(lse, Kokkos::make_pair(row, row + P), tokens), form, weights);
}

}  // namespace dekoder
