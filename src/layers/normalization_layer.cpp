// SPDX-License-Identifier: Apache-2.0
#include "layers/normalization_layer.hpp"

namespace dekoder {

NormActivations::NormActivations(ActivationArena& arena, const std::string& name, long tokens, int channels,
                                 bool residual_as_master)
    : sum(ResidualTensor2::take(arena, name + ".sum", tokens, channels, residual_as_master)),
      y(arena.take<StoredTensor2>(name + ".y", "N,C", tokens, channels)),
      mean(arena.take<MasterTensor1>(name + ".mean", "N", tokens)),
      rstd(arena.take<MasterTensor1>(name + ".rstd", "N", tokens)) {}

namespace {

bool has_bias(const ModelConfig& model) {
  return model.bias && model.norm_kind == NormKind::layer;
}

}  // namespace

void NormalizationLayer::declare(ParameterLayout& layout, const std::string& prefix, const ModelConfig& model) {
  const int C = model.channels;
  layout.add(prefix + ".gain", "C", {C}, false, {InitialValues::Kind::constant, 1.0});
  if (has_bias(model)) layout.add(prefix + ".bias", "C", {C}, false, {InitialValues::Kind::constant, 0.0});
}

NormalizationLayer::NormalizationLayer(const ParameterStore& store, const std::string& prefix,
                                       const ModelConfig& model)
    : gain(store.value1(prefix + ".gain")),
      grad_gain(store.gradient1(prefix + ".gain")),
      form(static_cast<Real>(model.norm_epsilon), model.norm_kind) {
  if (!has_bias(model)) return;
  bias = store.value1(prefix + ".bias");
  grad_bias = store.gradient1(prefix + ".bias");
}

void NormalizationLayer::forward(const ExecSpace& exec, const NormActivations& saved) const {
  layer_norm(exec, saved.sum, gain, bias, form, saved.y, saved.mean, saved.rstd);
}

void NormalizationLayer::forward(const ExecSpace& exec, const ResidualTensor2& residual, ConstStoredTensor2 delta,
                                 const Dropout& dropout, int tokens_per_sample,
                                 const NormActivations& saved) const {
  residual_layer_norm(exec, residual, delta, gain, bias, form, dropout, tokens_per_sample, saved.sum, saved.y,
                      saved.mean, saved.rstd);
}

void NormalizationLayer::backward(const ExecSpace& exec, const NormActivations& saved, ConstStoredTensor2 grad_y,
                                  GradientWrite write, const ResidualTensor2& grad_sum,
                                  MasterTensor3 partials) const {
  layer_norm_backward(exec, grad_y, saved.sum, gain, saved.mean, saved.rstd, write, grad_sum, grad_gain, grad_bias,
                      partials, form.kind);
}

}  // namespace dekoder
