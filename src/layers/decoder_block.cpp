// SPDX-License-Identifier: Apache-2.0
#include "layers/decoder_block.hpp"

#include <cmath>

#include "kernels/elementwise.hpp"
#include "tensor/region.hpp"

namespace dekoder {

namespace {

InitialValues normal(double deviation) {
  return {InitialValues::Kind::normal, deviation};
}
InitialValues zero() {
  return {InitialValues::Kind::constant, 0.0};
}
/// PyTorch's nn.Linear: uniform within 1 / sqrt(inputs), weights and biases alike.
InitialValues torch_uniform(int inputs) {
  return {InitialValues::Kind::uniform, 1.0 / std::sqrt(double(inputs))};
}

/// The gradient of dropout(x) with respect to x, as products read it: `grad` itself where it is that, else
/// `scratch`.
StoredTensor2 through_dropout(const ExecSpace& exec, const ResidualTensor2& grad, const Dropout& dropout, int T,
                              const StoredTensor2& scratch) {
  if (!dropout.active() && grad.is_stored()) return grad.stored();
  apply_dropout(exec, grad, dropout, T, scratch);
  return scratch;
}

std::uint64_t site(int block, int place) {
  return static_cast<std::uint64_t>(1 + 3 * block + place);
}

}  // namespace

std::string block_name(int index) {
  return fmt::format("blocks.{:02}", index);
}

bool residual_as_master(const ModelConfig& model) {
  return model.norm == NormPlacement::pre && model.residual == Residual::fp32;
}

BlockActivations::BlockActivations(ActivationArena& arena, const std::string& name, const ModelConfig& model,
                                   int sequences)
    : attention_norm(arena, name + ".attention_norm", long(sequences) * model.context, model.channels,
                     residual_as_master(model)),
      attention(arena, name + ".attention", sequences, model),
      feed_forward_norm(arena, name + ".feed_forward_norm", long(sequences) * model.context, model.channels,
                        residual_as_master(model)),
      feed_forward(arena, name + ".feed_forward", long(sequences) * model.context, model) {}

BlockActivations::BlockActivations(ActivationArena& arena, const std::string& name, const ModelConfig& model,
                                   int sequences, const BlockActivations& other)
    : BlockActivations(other) {
  const long N = long(sequences) * model.context;
  const int C = model.channels;
  if (model.norm == NormPlacement::pre)
    attention_norm.sum =
        ResidualTensor2::take(arena, name + ".attention_norm.sum", N, C, residual_as_master(model));
  else
    feed_forward_norm.y = arena.take<StoredTensor2>(name + ".feed_forward_norm.y", "N,C", N, C);
}

BlockScratch::BlockScratch(ActivationArena& arena, const ModelConfig& model, int sequences, ActivationUse use) {
  const long N = long(sequences) * model.context;
  const int C = model.channels;
  delta = arena.take<StoredTensor2>("scratch.delta", "N,C", N, C);
  const bool training = use == ActivationUse::training;
  if (training) grad_branch = arena.take<StoredTensor2>("scratch.grad_branch", "N,C", N, C);
  attention = AttentionScratch(arena, sequences, model, training);
  if (!training) return;
  feed_forward = FeedForwardScratch(arena, N, model);
  norm_partials = arena.take<MasterTensor3>("scratch.norm_partials", "P,2,C", row_blocks(N), 2, C);
}

void DecoderBlock::declare(ParameterLayout& layout, const std::string& prefix, const ModelConfig& model) {
  const int C = model.channels, F = model.feed_forward;
  const bool gpt2 = model.initialisation == Initialisation::gpt2;
  // GPT-2 (Radford et al. 2019, section 2.3) scales the projections into the residual stream by 1 / sqrt(2 L).
  const InitialValues plain = gpt2 ? normal(0.02) : torch_uniform(C);
  const InitialValues residual = normal(0.02 / std::sqrt(2.0 * model.layers));
  NormalizationLayer::declare(layout, prefix + ".attention_norm", model);
  SelfAttention::declare(layout, prefix + ".attention", model, plain,
                         gpt2 ? residual : torch_uniform(model.query_width()), gpt2 ? zero() : torch_uniform(C));
  NormalizationLayer::declare(layout, prefix + ".feed_forward_norm", model);
  FeedForward::declare(layout, prefix + ".feed_forward", model, plain, gpt2 ? residual : torch_uniform(F),
                       gpt2 ? zero() : torch_uniform(C), gpt2 ? zero() : torch_uniform(F));
}

DecoderBlock::DecoderBlock(const ParameterStore& store, const std::string& prefix, const ModelConfig& model,
                           const RotaryTable& rotary, int block_index)
    : name(prefix),
      placement(model.norm),
      index(block_index),
      attention_norm(store, prefix + ".attention_norm", model),
      attention(store, prefix + ".attention", model, rotary, block_index),
      feed_forward_norm(store, prefix + ".feed_forward_norm", model),
      feed_forward(store, prefix + ".feed_forward", model) {}

void DecoderBlock::attend_and_activate(const ExecSpace& exec, const DropoutKey& dropout,
                                       const BlockActivations& saved, const BlockScratch& scratch,
                                       const CachedKeysValues* cached) const {
  attention.forward(exec, saved.attention_norm.y, dropout.at(site(index, 0)), saved.attention, scratch.attention,
                    scratch.delta, cached);
  feed_forward_norm.forward(exec, saved.attention_norm.sum, scratch.delta, dropout.at(site(index, 1)),
                            saved.attention.lse.extent_int(2), saved.feed_forward_norm);
  feed_forward.activate(exec, saved.feed_forward_norm.y, saved.feed_forward);
}

void DecoderBlock::recompute(const ExecSpace& exec, const ResidualTensor2& input, const DropoutKey& dropout,
                             const BlockActivations& saved, const BlockScratch& scratch) const {
  if (placement == NormPlacement::post) {
    forward(exec, {input, {}, {}}, dropout, saved, scratch);
    return;
  }
  const Region region(name);
  attention_norm.forward(exec, saved.attention_norm);
  attend_and_activate(exec, dropout, saved, scratch, nullptr);
}

ResidualStream DecoderBlock::forward(const ExecSpace& exec, const ResidualStream& x, const DropoutKey& dropout,
                                     const BlockActivations& saved, const BlockScratch& scratch,
                                     const CachedKeysValues* cached) const {
  const Region region(name);
  const int T = saved.attention.lse.extent_int(2);
  const Dropout of_attention = dropout.at(site(index, 1)), of_feed_forward = dropout.at(site(index, 2));
  if (placement == NormPlacement::pre) {
    if (x.delta.size() == 0)
      attention_norm.forward(exec, saved.attention_norm);  // x.residual is saved.attention_norm.sum
    else
      attention_norm.forward(exec, x.residual, x.delta, x.dropout, T, saved.attention_norm);
    attend_and_activate(exec, dropout, saved, scratch, cached);
    feed_forward.project(exec, saved.feed_forward, scratch.delta);
    return {saved.feed_forward_norm.sum, scratch.delta, of_feed_forward};
  }
  attention.forward(exec, x.residual.stored(), dropout.at(site(index, 0)), saved.attention, scratch.attention,
                    scratch.delta, cached);
  attention_norm.forward(exec, x.residual, scratch.delta, of_attention, T, saved.attention_norm);
  feed_forward.activate(exec, saved.attention_norm.y, saved.feed_forward);
  feed_forward.project(exec, saved.feed_forward, scratch.delta);
  feed_forward_norm.forward(exec, saved.attention_norm.y, scratch.delta, of_feed_forward, T,
                            saved.feed_forward_norm);
  return {saved.feed_forward_norm.y, {}, {}};
}

void DecoderBlock::backward(const ExecSpace& exec, ConstStoredTensor2 input, const DropoutKey& dropout,
                            const BlockActivations& saved, const BlockScratch& scratch,
                            const ResidualTensor2& grad_residual) const {
  const Region region(name);
  constexpr auto overwrite = GradientWrite::overwrite, accumulate = GradientWrite::accumulate;
  const int T = saved.attention.lse.extent_int(2);
  const Dropout of_weights = dropout.at(site(index, 0));
  const Dropout of_attention = dropout.at(site(index, 1)), of_feed_forward = dropout.at(site(index, 2));
  if (placement == NormPlacement::pre) {
    const StoredTensor2 grad_down = through_dropout(exec, grad_residual, of_feed_forward, T, scratch.delta);
    feed_forward.backward(exec, saved.feed_forward_norm.y, saved.feed_forward, grad_down, scratch.feed_forward,
                          overwrite, scratch.grad_branch);
    feed_forward_norm.backward(exec, saved.feed_forward_norm, scratch.grad_branch, accumulate, grad_residual,
                               scratch.norm_partials);
    const StoredTensor2 grad_output = through_dropout(exec, grad_residual, of_attention, T, scratch.delta);
    attention.backward(exec, saved.attention_norm.y, of_weights, saved.attention, grad_output, scratch.attention,
                       overwrite, scratch.grad_branch);
    attention_norm.backward(exec, saved.attention_norm, scratch.grad_branch, accumulate, grad_residual,
                            scratch.norm_partials);
    return;
  }
  const StoredTensor2& grad = grad_residual.stored();
  feed_forward_norm.backward(exec, saved.feed_forward_norm, grad, overwrite, grad, scratch.norm_partials);
  const StoredTensor2 grad_down = through_dropout(exec, grad, of_feed_forward, T, scratch.delta);
  feed_forward.backward(exec, saved.attention_norm.y, saved.feed_forward, grad_down, scratch.feed_forward,
                        accumulate, grad);
  attention_norm.backward(exec, saved.attention_norm, grad, overwrite, grad, scratch.norm_partials);
  const StoredTensor2 grad_output = through_dropout(exec, grad, of_attention, T, scratch.delta);
  attention.backward(exec, input, of_weights, saved.attention, grad_output, scratch.attention, accumulate, grad);
}

}  // namespace dekoder
