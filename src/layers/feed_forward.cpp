// SPDX-License-Identifier: Apache-2.0
#include "layers/feed_forward.hpp"

#include <algorithm>

#include "kernels/elementwise.hpp"
#include "tensor/region.hpp"

namespace dekoder {

FeedForwardActivations::FeedForwardActivations(ActivationArena& arena, const std::string& name, long tokens,
                                               const ModelConfig& model)
    : hidden(
          arena.take<StoredTensor2>(name + ".hidden", model.gated ? "N,2F" : "N,F", tokens, model.hidden_width())),
      activated(arena.take<StoredTensor2>(name + ".activated", "N,F", tokens, model.feed_forward)) {}

FeedForwardScratch::FeedForwardScratch(ActivationArena& arena, long tokens, const ModelConfig& model)
    : grad_hidden(arena.take<StoredTensor2>("scratch.grad_hidden", model.gated ? "N,2F" : "N,F", tokens,
                                            model.hidden_width())),
      grad_activated(model.gated
                         ? arena.take<StoredTensor2>("scratch.grad_activated", "N,F", tokens, model.feed_forward)
                         : grad_hidden),
      partials(arena.take<MasterTensor2>("scratch.feed_forward_partials", "P,F", row_blocks(tokens),
                                         std::max(model.hidden_width(), model.channels))) {}

void FeedForward::declare(ParameterLayout& layout, const std::string& prefix, const ModelConfig& model,
                          InitialValues up_values, InitialValues down_values, InitialValues up_bias,
                          InitialValues down_bias) {
  const int C = model.channels, F = model.feed_forward;
  Linear::declare(layout, prefix + (model.gated ? ".gate_up" : ".up"), model.gated ? "2F,C" : "F,C",
                  model.hidden_width(), C, model.bias, up_values, up_bias);
  Linear::declare(layout, prefix + ".down", "C,F", C, F, model.bias, down_values, down_bias);
}

FeedForward::FeedForward(const ParameterStore& store, const std::string& prefix, const ModelConfig& model)
    : up(store, prefix + (model.gated ? ".gate_up" : ".up"), model.bias),
      down(store, prefix + ".down", model.bias),
      kind(model.activation),
      gated(model.gated) {}

void FeedForward::activate(const ExecSpace& exec, ConstStoredTensor2 x, const FeedForwardActivations& saved) const {
  const Region region("feed_forward");
  up.forward(exec, x, saved.hidden);
  gated ? gated_activation(exec, kind, saved.hidden, saved.activated)
        : activation(exec, kind, saved.hidden, saved.activated);
}

void FeedForward::project(const ExecSpace& exec, const FeedForwardActivations& saved, StoredTensor2 y) const {
  const Region region("feed_forward");
  down.forward(exec, saved.activated, y);
}

void FeedForward::backward(const ExecSpace& exec, ConstStoredTensor2 x, const FeedForwardActivations& saved,
                           ConstStoredTensor2 grad_y, const FeedForwardScratch& scratch, GradientWrite write,
                           StoredTensor2 grad_x) const {
  const Region region("feed_forward");
  const std::size_t P = scratch.partials.extent(0);
  const MasterTensor2 partials(scratch.partials.data(), P, saved.hidden.extent(1));
  down.backward_bias(exec, grad_y, MasterTensor2(scratch.partials.data(), P, grad_y.extent(1)));
  down.backward(exec, saved.activated, grad_y, GradientWrite::overwrite, scratch.grad_activated);
  if (gated)
    gated_activation_backward(exec, kind, saved.hidden, scratch.grad_activated, scratch.grad_hidden, up.grad_bias,
                              partials);
  else
    activation_backward(exec, kind, saved.hidden, scratch.grad_activated, scratch.grad_hidden, up.grad_bias,
                        partials);
  up.backward(exec, x, scratch.grad_hidden, write, grad_x);
}

}  // namespace dekoder
