// SPDX-License-Identifier: Apache-2.0
#include "layers/feed_forward.hpp"

#include <algorithm>

#include "kernels/elementwise.hpp"
#include "tensor/region.hpp"

namespace dekoder {

FeedForwardActivations::FeedForwardActivations(ActivationArena& arena, const std::string& name, long tokens,
                                               int feed_forward)
    : hidden(arena.take<StoredTensor2>(name + ".hidden", "N,F", tokens, feed_forward)),
      activated(arena.take<StoredTensor2>(name + ".activated", "N,F", tokens, feed_forward)) {}

FeedForwardScratch::FeedForwardScratch(ActivationArena& arena, long tokens, int feed_forward, int channels)
    : grad_hidden(arena.take<StoredTensor2>("scratch.grad_hidden", "N,F", tokens, feed_forward)),
      partials(arena.take<MasterTensor2>("scratch.feed_forward_partials", "P,F", row_blocks(tokens),
                                         std::max(feed_forward, channels))) {}

void FeedForward::declare(ParameterLayout& layout, const std::string& prefix, int channels, int feed_forward,
                          bool with_bias, InitialValues up_values, InitialValues down_values, InitialValues up_bias,
                          InitialValues down_bias) {
  Linear::declare(layout, prefix + ".up", "F,C", feed_forward, channels, with_bias, up_values, up_bias);
  Linear::declare(layout, prefix + ".down", "C,F", channels, feed_forward, with_bias, down_values, down_bias);
}

FeedForward::FeedForward(const ParameterStore& store, const std::string& prefix, Activation kind_, bool with_bias)
    : up(store, prefix + ".up", with_bias), down(store, prefix + ".down", with_bias), kind(kind_) {}

void FeedForward::forward(const ExecSpace& exec, ConstStoredTensor2 x, const FeedForwardActivations& saved,
                          StoredTensor2 y) const {
  const Region region("feed_forward");
  up.forward(exec, x, saved.hidden);
  activation(exec, kind, saved.hidden, saved.activated);
  down.forward(exec, saved.activated, y);
}

void FeedForward::backward(const ExecSpace& exec, ConstStoredTensor2 x, const FeedForwardActivations& saved,
                           ConstStoredTensor2 grad_y, const FeedForwardScratch& scratch, GradientWrite write,
                           StoredTensor2 grad_x) const {
  const Region region("feed_forward");
  const std::size_t P = scratch.partials.extent(0);
  down.backward_bias(exec, grad_y, MasterTensor2(scratch.partials.data(), P, grad_y.extent(1)));
  down.backward(exec, saved.activated, grad_y, GradientWrite::overwrite, scratch.grad_hidden);
  activation_backward(exec, kind, saved.hidden, scratch.grad_hidden, scratch.grad_hidden, up.grad_bias,
                      MasterTensor2(scratch.partials.data(), P, saved.hidden.extent(1)));
  up.backward(exec, x, scratch.grad_hidden, write, grad_x);
}

}  // namespace dekoder
