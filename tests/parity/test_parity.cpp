// SPDX-License-Identifier: Apache-2.0
// The decoder against PyTorch in double precision (make_fixtures.py): logits, attention weights, loss, every
// gradient, ten AdamW steps. In double the formulas are held to ten digits; in single precision and in bf16 to a
// few roundings of the largest value.
#include <gtest/gtest.h>

#include <array>
#include <iostream>
#include <set>

#include "model/model_summary.hpp"
#include "support/parity_fixture.hpp"
#include "support/source_folder.hpp"
#include "train/training_model.hpp"

namespace dekoder::testing {
namespace {

constexpr std::array fixture_names{
    "gpt2",         "long_context",   "post_learned_erf",          "post_multihead_relu",
    "post_no_bias", "pre_no_bias",    "pre_sinusoidal_relu",       "talk",
    "wide_head",    "llama",          "multi_query_partly_rotary", "rms_relu_squared",
    "qwen3",        "qk_norm",        "soft_cap_z_loss",           "muon",
    "mistral",      "window_by_layer"};

std::filesystem::path fixture_folder() {
  return testing_support::source_folder() / "tests/parity/fixtures";
}

/// Largest deviations allowed, relative to the largest reference value of each tensor.
struct Tolerances {
  double logits, attention, loss, gradients, gradients_rms, losses, norms, parameters, parameters_rms;
};
#if defined(DEKODER_PRECISION_DOUBLE)
// The fixtures keep 36 bits: 7e-12 of a value.
constexpr Tolerances tolerances{5e-11, 5e-11, 5e-11, 5e-11, 5e-11, 5e-11, 5e-11, 5e-11, 5e-11};
#elif defined(DEKODER_PRECISION_BF16)
// A rounding is off by u = 2^-8 of a value at most, by u / 3.5 in the mean; a value passes some eight per block,
// and twice as many on the way back, and their errors add up like the square root of their number: the largest of
// many elements lies within 10 u (attention weights of rotary positions, where queries and keys are rounded twice,
// within 12 u), on the way back within 20 u, the root mean square well below it. A loss is a mean over tokens, of
// which some fixtures have few. CPUs' form of the kernels and that of GPUs are equally far off.
constexpr double u = 0x1p-8;
constexpr Tolerances tolerances{10 * u, 12 * u, u / 2, 20 * u, 8 * u, 2 * u, 10 * u, 20 * u, 8 * u};
#else
// AdamW divides a gradient by its own size: where a gradient is small beside its tensor's largest, its rounding
// errors grow by that ratio. So single parameters may lie further off than their root mean square.
constexpr Tolerances tolerances{2e-6, 4e-6, 2e-7, 5e-6, 5e-6, 1e-6, 5e-6, 1e-4, 5e-7};
#endif

/// A decoder with its optimizer and activations, on the values of a fixture.
class ParityModel {
 public:
  ParityModel(const ParityFixture& fixture, Residual residual)
      : config_(with_residual(fixture.config(), residual)),
        store_(run_parameters(config_)),
        optimizer_(config_.model, store_.layout()),
        decoder_(config_.model, store_),
        arena_(activation_bytes(config_.model, config_.micro_batch())),
        activations_(arena_, config_.model, config_.micro_batch()),
        tokens_("tokens", std::size_t(config_.micro_batch()), std::size_t(config_.model.context)),
        targets_("targets", tokens_.extent(0), tokens_.extent(1)) {
    for (const ParameterEntry& entry : store_.layout().entries()) {
      const MasterTensor1 slice = ParameterStore::flat_slice(store_.values_to_write(), entry);
      const auto host = Kokkos::create_mirror_view(slice);
      const HostTensor values = fixture.tensor("parameters/" + entry.name);
      for (std::size_t i = 0; i < host.size(); ++i) host(i) = static_cast<Real>(values.values.at(i));
      Kokkos::deep_copy(slice, host);
    }
  }

  void load(const ParityFixture& fixture, int step) {
    Kokkos::deep_copy(tokens_, fixture.batch("tokens", step));
    Kokkos::deep_copy(targets_, fixture.batch("targets", step));
  }

  void forward() { decoder_.forward(exec_, tokens_, DropoutKey{}, activations_); }

  /// Mean cross-entropy of the loaded batch; accumulates the gradients.
  double forward_backward() {
    const double N = double(tokens_.size());
    forward();
    const double loss = decoder_.loss_backward(exec_, targets_, Real(1 / N), activations_) / N;
    decoder_.backward(exec_, tokens_, DropoutKey{}, activations_);
    exec_.fence();
    return loss;
  }

  /// Logits (B,T,V) of the last forward pass, without the padding columns.
  HostTensor logits() {
    const std::size_t N = tokens_.size(), V = std::size_t(config_.model.vocabulary);
    const StoredTensor2 padded("logits", N, std::size_t(padded_vocabulary(config_.model)));
    decoder_.logits(exec_, activations_, padded);
    exec_.fence();
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), padded);
    HostTensor result{{tokens_.extent(0), tokens_.extent(1), V}, {}};
    for (std::size_t n = 0; n < N; ++n)
      for (std::size_t v = 0; v < V; ++v) result.values.push_back(host(n, v));
    return result;
  }

  /// Attention weights (L,B,H,T,T) of the last forward pass.
  HostTensor attention() {
    const std::size_t B = tokens_.extent(0), T = tokens_.extent(1), H = std::size_t(config_.model.heads);
    const MasterTensor3 weights("weights", H, T, T);
    HostTensor result{{decoder_.blocks.size(), B, H, T, T}, {}};
    for (std::size_t l = 0; l < decoder_.blocks.size(); ++l)
      for (std::size_t b = 0; b < B; ++b) {
        decoder_.blocks[l].attention.weights(exec_, activations_.blocks[l].attention,
                                             activations_.scratch.attention, int(b), 0, weights);
        exec_.fence();
        const HostTensor one = to_host(weights);
        result.values.insert(result.values.end(), one.values.begin(), one.values.end());
      }
    return result;
  }

  /// Returns the gradient's norm before clipping.
  double optimizer_step(int step) { return optimizer_.step(exec_, config_.training, step, store_); }

  const std::vector<ParameterEntry>& entries() const { return store_.layout().entries(); }
  HostTensor value(const ParameterEntry& entry) const { return slice(store_.values(), entry); }
  HostTensor gradient(const ParameterEntry& entry) const { return slice(store_.gradients(), entry); }

 private:
  static RunConfig with_residual(RunConfig config, Residual residual) {
    config.model.residual = residual;
    return config;
  }
  static HostTensor slice(const ConstMasterTensor1& buffer, const ParameterEntry& entry) {
    HostTensor result = to_host(ParameterStore::flat_slice(buffer, entry));
    result.shape.assign(entry.shape.begin(), entry.shape.end());
    return result;
  }

  RunConfig config_;
  ExecSpace exec_;
  ParameterStore store_;
  Optimizer optimizer_;
  Decoder decoder_;
  ActivationArena arena_;
  DecoderActivations activations_;
  TokenTensor2 tokens_, targets_;
};

struct Variant {
  const char* fixture;
  Residual residual;

  std::string name() const { return fixture + std::string(residual == Residual::fp32 ? "_residual_float" : ""); }
};

std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (const char* fixture : fixture_names) {
    all.push_back({fixture, Residual::stored});
    if (stored_is_short) all.push_back({fixture, Residual::fp32});
  }
  return all;
}

class Parity : public ::testing::TestWithParam<Variant> {
 protected:
  Parity()
      : fixture(fixture_folder() / (std::string(GetParam().fixture) + ".h5")),
        model(fixture, GetParam().residual) {}

  /// Fails with the first bad element where there is one.
  static void expect(const Deviation& found) { EXPECT_TRUE(found.complaint.empty()) << found.complaint; }

  ParityFixture fixture;
  ParityModel model;
};

TEST_P(Parity, ParametersHaveTheSameNamesAndShapes) {
  std::set<std::string> names;
  for (const ParameterEntry& entry : model.entries()) {
    names.insert(entry.name);
    EXPECT_EQ(model.value(entry).shape, fixture.tensor("parameters/" + entry.name).shape) << entry.name;
  }
  const std::vector<std::string> expected = fixture.parameter_names();
  EXPECT_EQ(names, std::set<std::string>(expected.begin(), expected.end()));
}

TEST_P(Parity, LogitsLossAndEveryGradient) {
  model.load(fixture, 0);
  const double loss = model.forward_backward();
  const Deviation logits = deviation("logits", model.logits(), fixture.tensor("logits"), tolerances.logits);
  expect(logits);
  const Deviation of_loss =
      deviation("loss", {{1}, {loss}}, {{1}, {fixture.tensor("losses").values[0]}}, tolerances.loss);
  expect(of_loss);
  // Where ReLU is near 0, a rounding in bf16 switches a whole term of a gradient on or off.
  const bool switches = stored_is_short && fixture.config().model.activation == Activation::relu;
  const double factor = switches ? 8 : 1;
  Deviation gradients;
  for (const ParameterEntry& entry : model.entries()) {
    const Deviation found = deviation("gradient of " + entry.name, model.gradient(entry),
                                      fixture.tensor("gradients/" + entry.name), factor * tolerances.gradients);
    expect(found);
    EXPECT_LE(found.root_mean_square, factor * tolerances.gradients_rms) << "gradient of " << entry.name;
    gradients.merge(found);
  }
  std::cout << fmt::format("{}: logits {:.1e}, loss {:.1e}, gradients {:.1e} (rms {:.1e}) of the largest value\n",
                           GetParam().name(), logits.largest, of_loss.largest, gradients.largest,
                           gradients.root_mean_square);
}

TEST_P(Parity, AttentionWeightsOfEveryLayerAndHead) {
  model.load(fixture, 0);
  model.forward();
  const Deviation found =
      deviation("attention", model.attention(), fixture.tensor("attention"), tolerances.attention);
  expect(found);
  std::cout << fmt::format("{}: attention weights {:.1e} of the largest value\n", GetParam().name(), found.largest);
}

TEST_P(Parity, TenSteps) {
  HostTensor losses{{std::size_t(fixture.steps())}, {}}, norms = losses;
  for (int step = 0; step < fixture.steps(); ++step) {
    model.load(fixture, step);
    losses.values.push_back(model.forward_backward());
    norms.values.push_back(model.optimizer_step(step));
  }
  const Deviation of_losses = deviation("loss of step ", losses, fixture.tensor("losses"), tolerances.losses);
  const Deviation of_norms =
      deviation("gradient norm of step ", norms, fixture.tensor("gradient_norms"), tolerances.norms);
  expect(of_losses);
  expect(of_norms);
  Deviation parameters;
  for (const ParameterEntry& entry : model.entries()) {
    // Softmax does not see what all keys share: the keys' bias has gradient zero, its updates are rounding errors
    // that AdamW has blown up.
    const bool has_key_bias = entry.name.ends_with("attention.qkv.bias");
    const ModelConfig shape = fixture.config().model;
    const std::size_t first_key = has_key_bias ? std::size_t(shape.query_width()) : 0;
    const std::size_t keys = has_key_bias ? std::size_t(shape.key_heads() * shape.head_width()) : 0;
    const Deviation found =
        deviation("final " + entry.name, model.value(entry), fixture.tensor("final_parameters/" + entry.name),
                  tolerances.parameters, first_key, first_key + keys);
    expect(found);
    EXPECT_LE(found.root_mean_square, tolerances.parameters_rms) << "final " << entry.name;
    parameters.merge(found);
  }
  std::cout << fmt::format("{}: losses {:.1e}, norms {:.1e}, parameters {:.1e} (rms {:.1e}) of the largest value\n",
                           GetParam().name(), of_losses.largest, of_norms.largest, parameters.largest,
                           parameters.root_mean_square);
}

INSTANTIATE_TEST_SUITE_P(Variants, Parity, ::testing::ValuesIn(variants()),
                         [](const auto& variant) { return variant.param.name(); });

TEST(ParityFixtures, EveryFileIsTested) {
  std::set<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(fixture_folder())) files.insert(entry.path().stem());
  EXPECT_EQ(files, std::set<std::string>(fixture_names.begin(), fixture_names.end()));
}

TEST(ParityFixtures, EveryChoiceOfTheModelIsCovered) {
  std::set<Positions> positions;
  std::set<NormPlacement> norms;
  std::set<Activation> activations;
  std::set<NormKind> norm_kinds;
  std::set<bool> biases, tied_heads, one_head, gated, shared_keys, own_head_size, partly_rotary, stretched,
      qk_norms, capped, z_losses, windows;
  for (const char* name : fixture_names) {
    const ModelConfig model = ParityFixture(fixture_folder() / (std::string(name) + ".h5")).config().model;
    positions.insert(model.positions);
    norms.insert(model.norm);
    activations.insert(model.activation);
    biases.insert(model.bias);
    tied_heads.insert(model.tied_head);
    one_head.insert(model.heads == 1);
    norm_kinds.insert(model.norm_kind);
    gated.insert(model.gated);
    qk_norms.insert(model.qk_norm);
    capped.insert(model.logit_soft_cap > 0);
    z_losses.insert(model.z_loss > 0);
    windows.insert(model.sliding_window.empty());
    shared_keys.insert(model.key_heads() < model.heads);
    own_head_size.insert(model.query_width() != model.channels);
    if (model.positions != Positions::rotary) continue;
    partly_rotary.insert(model.rotary_width() < model.head_width());
    stretched.insert(model.rotary_factor > 1);
  }
  EXPECT_EQ(positions.size(), 4u);
  EXPECT_EQ(norms.size(), 2u);
  EXPECT_EQ(activations.size(), 5u);
  EXPECT_EQ(norm_kinds.size(), 2u);
  for (const auto& both :
       {gated, shared_keys, own_head_size, partly_rotary, stretched, qk_norms, capped, z_losses, windows})
    EXPECT_EQ(both.size(), 2u);
  EXPECT_EQ(biases.size(), 2u);
  EXPECT_EQ(tied_heads.size(), 2u);
  EXPECT_EQ(one_head.size(), 2u);
}

}  // namespace
}  // namespace dekoder::testing
