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

/// (N,3C) as (B,T,3,H,D).
ConstTensor5 as_heads(const Tensor2& qkv, const Tensor3& lse) {
  const int B = lse.extent_int(0), H = lse.extent_int(1), T = lse.extent_int(2);
  return reshape<Tensor5>(qkv, B, T, 3, H, qkv.extent_int(1) / (3 * H));
}

/// (N,C) as (B,T,H,D).
Tensor4 as_heads_of_one(const Tensor2& x, const Tensor3& lse) {
  const int B = lse.extent_int(0), H = lse.extent_int(1), T = lse.extent_int(2);
  return reshape<Tensor4>(x, B, T, H, x.extent_int(1) / H);
}

}  // namespace

AttentionActivations::AttentionActivations(ActivationArena& arena, const std::string& name, int sequences,
                                           int context, int heads, int channels)
    : qkv(arena.take<Tensor2>(name + ".qkv", "N,3C", sequences * context, 3 * channels)),
      attended(arena.take<Tensor2>(name + ".attended", "N,C", sequences * context, channels)),
      lse(arena.take<Tensor3>(name + ".lse", "B,H,T", sequences, heads, context)) {}

AttentionScratch::AttentionScratch(ActivationArena& arena, int sequences, int context, int heads, int channels)
    : grad_qkv(arena.take<Tensor2>("scratch.grad_qkv", "N,3C", sequences * context, 3 * channels)),
      grad_attended(arena.take<Tensor2>("scratch.grad_attended", "N,C", sequences * context, channels)),
      delta(arena.take<Tensor3>("scratch.attention_delta", "B,H,T", sequences, heads, context)),
      partials(arena.take<Tensor2>("scratch.attention_partials", "P,3C", row_blocks(sequences * context),
                                   3 * channels)) {}

void SelfAttention::declare(ParameterLayout& layout, const std::string& prefix, int channels, bool with_bias,
                            InitialValues qkv_values, InitialValues output_values, InitialValues bias_values) {
  Linear::declare(layout, prefix + ".qkv", "3C,C", 3 * channels, channels, with_bias, qkv_values, bias_values);
  Linear::declare(layout, prefix + ".output", "C,C", channels, channels, with_bias, output_values, bias_values);
}

SelfAttention::SelfAttention(const ParameterStore& store, const std::string& prefix, int heads_, bool with_bias)
    : qkv(store, prefix + ".qkv", with_bias), output(store, prefix + ".output", with_bias), heads(heads_) {}

void SelfAttention::forward(const ExecSpace& exec, ConstTensor2 x, const Dropout& weight_dropout,
                            const AttentionActivations& saved, Tensor2 y, const CachedKeysValues* cached) const {
  const Region region("attention");
  const int C = x.extent_int(1), H = heads, B = saved.lse.extent_int(0);
  const Real scale = attention_scale(C, H);
  qkv.forward(exec, x, saved.qkv);
  if (cached != nullptr)
    cached_attention(exec, reshape<ConstTensor4>(saved.qkv, B, 3, H, C / H), cached->position, scale, cached->cache,
                     reshape<Tensor3>(saved.attended, B, H, C / H));
  else
    causal_attention(exec, as_heads(saved.qkv, saved.lse), scale, weight_dropout,
                     as_heads_of_one(saved.attended, saved.lse), saved.lse);
  output.forward(exec, saved.attended, y);
}

void SelfAttention::backward(const ExecSpace& exec, ConstTensor2 x, const Dropout& weight_dropout,
                             const AttentionActivations& saved, ConstTensor2 grad_y,
                             const AttentionScratch& scratch, GradientWrite write, Tensor2 grad_x) const {
  const Region region("attention");
  const int C = x.extent_int(1), H = heads, B = saved.lse.extent_int(0), T = saved.lse.extent_int(2);
  output.backward_bias(exec, grad_y, Tensor2(scratch.partials.data(), scratch.partials.extent(0), C));
  output.backward(exec, saved.attended, grad_y, GradientWrite::overwrite, scratch.grad_attended);
  causal_attention_backward(exec, as_heads(saved.qkv, saved.lse), as_heads_of_one(saved.attended, saved.lse),
                            as_heads_of_one(scratch.grad_attended, saved.lse), saved.lse, attention_scale(C, H),
                            weight_dropout, scratch.delta, reshape<Tensor5>(scratch.grad_qkv, B, T, 3, H, C / H));
  qkv.backward_bias(exec, scratch.grad_qkv, scratch.partials);
  qkv.backward(exec, x, scratch.grad_qkv, write, grad_x);
}

void SelfAttention::weights(const ExecSpace& exec, const AttentionActivations& saved, int sequence,
                            Tensor3 weights) const {
  const int C = saved.attended.extent_int(1), H = heads, T = saved.lse.extent_int(2), n = weights.extent_int(1);
  const ConstTensor2 qkv_rows = rows(saved.qkv, sequence * T, sequence * T + n);
  const ConstTensor2 lse = reshape<ConstTensor2>(saved.lse, saved.lse.extent_int(0) * H, T);
  attention_weights(
      exec, reshape<ConstTensor4>(qkv_rows, n, 3, H, C / H),
      Kokkos::subview(lse, Kokkos::make_pair(sequence * H, (sequence + 1) * H), Kokkos::make_pair(0, n)),
      attention_scale(C, H), weights);
}

}  // namespace dekoder
