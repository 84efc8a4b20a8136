// SPDX-License-Identifier: Apache-2.0
#include "layers/self_attention.hpp"

#include <cmath>

#include "kernels/elementwise.hpp"
#include "tensor/region.hpp"

namespace dekoder {

namespace {

Real attention_scale(int channels, int heads) {
  return static_cast<Real>(1.0 / std::sqrt(double(channels) / heads));
}

/// (N,C) as (B,T,H,D).
StoredTensor4 as_heads(const StoredTensor2& x, const MasterTensor3& lse) {
  const int B = lse.extent_int(0), H = lse.extent_int(1), T = lse.extent_int(2);
  return reshape<StoredTensor4>(x, B, T, H, x.extent_int(1) / H);
}

}  // namespace

AttentionActivations::AttentionActivations(ActivationArena& arena, const std::string& name, int sequences,
                                           int context, int heads, int channels)
    : qkv(arena.take<StoredTensor2>(name + ".qkv", "N,3C", long(sequences) * context, 3L * channels)),
      attended(arena.take<StoredTensor2>(name + ".attended", "N,C", long(sequences) * context, channels)),
      lse(arena.take<MasterTensor3>(name + ".lse", "B,H,T", sequences, heads, context)) {}

AttentionScratch::AttentionScratch(ActivationArena& arena, int sequences, int context, int heads, int channels,
                                   bool with_gradients) {
  const long N = long(sequences) * context;
  if (const std::size_t elements = attention_score_elements(sequences, context, heads); elements > 0)
    scores = arena.take<MasterTensor1>("scratch.attention_scores", "S", elements);
  if (!with_gradients) return;
  grad_qkv = arena.take<StoredTensor2>("scratch.grad_qkv", "N,3C", N, 3L * channels);
  grad_attended = arena.take<StoredTensor2>("scratch.grad_attended", "N,C", N, channels);
  delta = arena.take<MasterTensor3>("scratch.attention_delta", "B,H,T", sequences, heads, context);
  partials = arena.take<MasterTensor2>("scratch.attention_partials", "P,3C", row_blocks(N), 3L * channels);
}

void SelfAttention::declare(ParameterLayout& layout, const std::string& prefix, int channels, bool with_bias,
                            InitialValues qkv_values, InitialValues output_values, InitialValues bias_values) {
  Linear::declare(layout, prefix + ".qkv", "3C,C", 3 * channels, channels, with_bias, qkv_values, bias_values);
  Linear::declare(layout, prefix + ".output", "C,C", channels, channels, with_bias, output_values, bias_values);
}

SelfAttention::SelfAttention(const ParameterStore& store, const std::string& prefix, int heads_, bool with_bias)
    : qkv(store, prefix + ".qkv", with_bias), output(store, prefix + ".output", with_bias), heads(heads_) {}

void SelfAttention::forward(const ExecSpace& exec, ConstStoredTensor2 x, const Dropout& weight_dropout,
                            const AttentionActivations& saved, const AttentionScratch& scratch, StoredTensor2 y,
                            const CachedKeysValues* cached) const {
  const Region region("attention");
  const Real scale = attention_scale(x.extent_int(1), heads);
  qkv.forward(exec, x, saved.qkv);
  const Heads parts = split_heads(saved.qkv, saved.lse.extent_int(0), heads, heads);
  const StoredTensor4 attended = as_heads(saved.attended, saved.lse);
  if (cached != nullptr)
    cached_attention(exec, parts, cached->position, scale, cached->cache, cached->sums, attended);
  else
    causal_attention(exec, parts, scale, weight_dropout, attended, saved.lse, scratch.scores);
  output.forward(exec, saved.attended, y);
}

void SelfAttention::backward(const ExecSpace& exec, ConstStoredTensor2 x, const Dropout& weight_dropout,
                             const AttentionActivations& saved, ConstStoredTensor2 grad_y,
                             const AttentionScratch& scratch, GradientWrite write, StoredTensor2 grad_x) const {
  const Region region("attention");
  const int C = x.extent_int(1), B = saved.lse.extent_int(0);
  output.backward_bias(exec, grad_y, MasterTensor2(scratch.partials.data(), scratch.partials.extent(0), C));
  output.backward(exec, saved.attended, grad_y, GradientWrite::overwrite, scratch.grad_attended);
  causal_attention_backward(exec, split_heads(saved.qkv, B, heads, heads), as_heads(saved.attended, saved.lse),
                            as_heads(scratch.grad_attended, saved.lse), saved.lse, attention_scale(C, heads),
                            weight_dropout, scratch.delta, split_heads(scratch.grad_qkv, B, heads, heads),
                            scratch.scores);
  qkv.backward_bias(exec, scratch.grad_qkv, scratch.partials);
  qkv.backward(exec, x, scratch.grad_qkv, write, grad_x);
}

void SelfAttention::weights(const ExecSpace& exec, const AttentionActivations& saved, int sequence, int first_head,
                            MasterTensor3 weights) const {
  const int B = saved.lse.extent_int(0), T = saved.lse.extent_int(2), row = sequence * heads + first_head;
  const auto tokens = Kokkos::make_pair(0, weights.extent_int(1));
  const auto some = Kokkos::make_pair(first_head, first_head + weights.extent_int(0));
  const Heads parts = split_heads(saved.qkv, B, heads, heads);
  const auto lse = reshape<ConstMasterTensor2>(saved.lse, long(B) * heads, T);
  attention_weights(exec, Kokkos::subview(parts.query, sequence, tokens, some, Kokkos::ALL),
                    Kokkos::subview(parts.key, sequence, tokens, some, Kokkos::ALL),
                    Kokkos::subview(lse, Kokkos::make_pair(row, row + weights.extent_int(0)), tokens),
                    attention_scale(saved.attended.extent_int(1), heads), weights);
}

}  // namespace dekoder
