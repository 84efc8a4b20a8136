// SPDX-License-Identifier: Apache-2.0
// Central differences through the whole decoder, every parameter element of every variant, on the double build.
#include <gtest/gtest.h>

#include <cmath>

#include "support/gradient_check.hpp"
#include "support/small_decoder.hpp"

namespace dekoder::testing {
namespace {

struct Variant {
  const char* name;
  void (*change)(ModelConfig&);
};

void PrintTo(const Variant& variant, std::ostream* out) {
  *out << variant.name;
}

class DecoderGradient : public ::testing::TestWithParam<Variant> {};

TEST_P(DecoderGradient, EqualsCentralDifferences) {
  RunConfig config = small_config();
  GetParam().change(config.model);
  const ExecSpace exec;
  TrainingModel model(config);
  model.store().initialise(exec, 3);
  // Initial values of GPT-2 are so small that many gradients vanish; spread them.
  const MasterTensor1 parameters = model.store().values_to_write();
  change(parameters, [](const auto& values) {
    for (std::size_t i = 0; i < values.size(); ++i) values(i) += 0.3 * RandomStream(5, 6).normal(i);
  });
  model.load(exec, random_tokens(config, 1), random_tokens(config, 2));
  const DropoutKey dropout{Real(config.model.dropout), 9, 4, 17};
  const Real scale = Real(1) / Real(config.training.batch * config.model.context);
  const auto loss = [&] {
    const double cross_entropies = model.accumulate_gradients(exec, dropout, scale);
    return double(scale) * (cross_entropies + model.z_loss(exec));
  };

  loss();
  const std::vector<double> values = values_of(parameters), analytic = values_of(model.store().gradients());
  for (const ParameterEntry& entry : model.store().layout().entries()) {
    const std::size_t stride = std::max<std::size_t>(1, entry.size() / 24);
    for (std::size_t i = 0; i < entry.size(); i += stride) {
      const std::size_t place = entry.offset + i;
      const double numeric = central_difference(parameters, place, values[place], loss, 1e-5);
      ASSERT_NEAR(analytic[place], numeric, 1e-8 + 1e-6 * std::abs(numeric)) << entry.name << " element " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Variants, DecoderGradient,
    ::testing::Values(
        Variant{"gpt2", [](ModelConfig&) {}},
        Variant{"post_norm_sinusoidal_relu",
                [](ModelConfig& m) {
                  m.norm = NormPlacement::post, m.positions = Positions::sinusoidal,
                  m.activation = Activation::relu, m.tied_head = false,
                  m.initialisation = Initialisation::torch_linear;
                }},
        Variant{"no_positions_gelu_erf",
                [](ModelConfig& m) { m.positions = Positions::none, m.activation = Activation::gelu_erf; }},
        Variant{"no_bias_separate_head", [](ModelConfig& m) { m.bias = false, m.tied_head = false; }},
        Variant{"post_norm_no_bias_one_head",
                [](ModelConfig& m) { m.norm = NormPlacement::post, m.bias = false, m.heads = 1; }},
        Variant{"dropout_pre", [](ModelConfig& m) { m.dropout = 0.3; }},
        Variant{"dropout_post_separate_head",
                [](ModelConfig& m) { m.dropout = 0.3, m.norm = NormPlacement::post, m.tied_head = false; }},
        Variant{"llama",
                [](ModelConfig& m) {
                  m.norm_kind = NormKind::rms, m.positions = Positions::rotary, m.activation = Activation::silu;
                  m.gated = true, m.bias = false, m.heads = 4, m.key_value_heads = 2, m.head_size = 6;
                }},
        Variant{"post_norm_rms_one_key_relu_squared",
                [](ModelConfig& m) {
                  m.norm = NormPlacement::post, m.norm_kind = NormKind::rms, m.key_value_heads = 1;
                  m.activation = Activation::relu_squared;
                }},
        Variant{"gated_gelu_with_bias_partly_rotary_dropout",
                [](ModelConfig& m) {
                  m.gated = true, m.positions = Positions::rotary, m.rotary_fraction = 0.5, m.dropout = 0.3;
                  m.head_size = 8, m.rotary_factor = 4, m.rotary_original_context = 40;
                }},
        Variant{"qwen3",
                [](ModelConfig& m) {
                  m.norm_kind = NormKind::rms, m.positions = Positions::rotary, m.activation = Activation::silu;
                  m.gated = true, m.bias = false, m.heads = 4, m.key_value_heads = 2, m.head_size = 6;
                  m.qk_norm = true, m.norm_epsilon = 1e-3;
                }},
        Variant{"qk_norm_post_norm_dropout",
                [](ModelConfig& m) { m.qk_norm = true, m.norm = NormPlacement::post, m.dropout = 0.3; }},
        Variant{"soft_cap_z_loss", [](ModelConfig& m) { m.logit_soft_cap = 2, m.z_loss = 0.03; }},
        Variant{"z_loss_separate_head", [](ModelConfig& m) { m.tied_head = false, m.z_loss = 0.03; }},
        Variant{
            "window_of_every_second_layer",
            [](ModelConfig& m) { m.sliding_window = {3, 0}, m.dropout = 0.3, m.heads = 2, m.key_value_heads = 1; }},
        Variant{"one_layer_wide", [](ModelConfig& m) { m.layers = 1, m.feed_forward = 37, m.heads = 5; }}),
    [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace
}  // namespace dekoder::testing
