// SPDX-License-Identifier: Apache-2.0
// Memory for inference: what a forward pass gives with less of it, and what it takes.
#include <gtest/gtest.h>

#include "inference/attention_capture.hpp"
#include "model/model_summary.hpp"
#include "support/host_tensor.hpp"
#include "support/small_decoder.hpp"

namespace dekoder::testing {
namespace {

ModelConfig model_of(NormPlacement norm, int layers = 4) {
  ModelConfig model = small_config().model;
  model.norm = norm;
  model.layers = layers;
  return model;
}

/// What one forward pass of three sequences leaves behind.
struct Outcome {
  std::vector<double> losses;
  std::vector<std::vector<double>> maps;  ///< attention weights by layer, of sequence 1

  Outcome(const ModelConfig& model, const ParameterStore& store, ActivationUse use) {
    const ExecSpace exec;
    const Decoder decoder(model, store);
    ActivationArena arena(activation_bytes(model, 3, use));
    const DecoderActivations activations(arena, model, 3, use);
    EXPECT_EQ(arena.bytes(), activation_bytes(model, 3, use));
    RunConfig config = small_config();
    const auto inputs = on_device(random_tokens(config, 1));
    const auto targets = on_device(random_tokens(config, 2));
    decoder.forward(exec, inputs, DropoutKey{}, activations);
    if (use != ActivationUse::losses)
      for (int l = 0; l < model.layers; ++l) {
        const MasterTensor3 weights("weights", model.heads, model.context, model.context);
        decoder.blocks[std::size_t(l)].attention.weights(exec, activations.blocks[std::size_t(l)].attention,
                                                         activations.scratch.attention, 1, 0, weights);
        exec.fence();
        maps.push_back(values_of(weights));
      }
    decoder.losses(exec, targets, activations);
    exec.fence();
    losses = values_of(activations.losses);
  }
};

class InferenceActivations : public ::testing::TestWithParam<NormPlacement> {};

TEST_P(InferenceActivations, GiveTheSameBitsAsThoseOfTraining) {
  const ModelConfig model = model_of(GetParam());
  ParameterStore store(decoder_parameters(model), Gradients::none);
  store.initialise(ExecSpace(), 3);
  const Outcome training(model, store, ActivationUse::training);
  const Outcome maps(model, store, ActivationUse::attention_maps);
  EXPECT_EQ(Outcome(model, store, ActivationUse::losses).losses, training.losses);
  EXPECT_EQ(maps.losses, training.losses);
  EXPECT_EQ(maps.maps, training.maps);
  EXPECT_NE(maps.maps[0], maps.maps[1]);
}

TEST_P(InferenceActivations, TakeTheMemoryOfOneBlock) {
  const auto bytes = [&](int layers, ActivationUse use) {
    return activation_bytes(model_of(GetParam(), layers), 3, use);
  };
  EXPECT_EQ(bytes(9, ActivationUse::losses), bytes(1, ActivationUse::losses));
  ActivationArena attention;
  const ModelConfig model = model_of(GetParam());
  AttentionActivations(attention, "attention", 3, model);
  EXPECT_EQ(bytes(9, ActivationUse::attention_maps),
            bytes(1, ActivationUse::attention_maps) + 8 * attention.bytes());
  ActivationArena arena;
  DecoderActivations(arena, model, 3, ActivationUse::losses);
  for (const ArenaEntry& entry : arena.entries())
    EXPECT_EQ(entry.name.find("grad"), std::string::npos) << entry.name;
  EXPECT_LT(2 * arena.bytes(), activation_bytes(model, 3));
}

INSTANTIATE_TEST_SUITE_P(Norms, InferenceActivations, ::testing::Values(NormPlacement::pre, NormPlacement::post));

/// Gradients, losses and attention maps of three sequences, as bits.
struct Training {
  std::vector<double> gradients, maps;
  double loss = 0;
  std::size_t bytes;

  explicit Training(const RunConfig& config) : bytes(activation_bytes(config.model, config.micro_batch())) {
    const ExecSpace exec;
    TrainingModel model(config);
    EXPECT_EQ(model.activation_bytes(), bytes);
    model.store().initialise(exec, 3);
    AttentionFileInfo info;
    for (int l = 0; l < config.model.layers; ++l) info.layers.push_back(l);
    for (int h = 0; h < config.model.heads; ++h) info.heads.push_back(h);
    for (const Token first : {1, 2, 3, 4}) info.probes.push_back({"", "", "", {first, 5, 6}, {"", "", ""}});
    for (const AttentionMaps& of_probe : AttentionCapture(model.decoder(), model.activations(), info).capture(exec))
      maps.insert(maps.end(), of_probe.weights.begin(), of_probe.weights.end());
    model.load(exec, random_tokens(config, 1), random_tokens(config, 2));
    const DropoutKey dropout{Real(config.model.dropout), 1, 5, 0};
    for (int micro = 0; micro < 2; ++micro) loss = model.accumulate_gradients(exec, dropout, Real(0.05));
    exec.fence();
    gradients = values_of(model.store().gradients());
  }
};

TEST_P(InferenceActivations, ThatAreComputedOnceMoreGiveTheSameBits) {
  for (const bool modern : {false, true})
    for (const double dropout : {0.0, 0.2}) {
      RunConfig config = small_config();
      config.model = model_of(GetParam());
      config.model.dropout = dropout;
      if (modern) {
        config.model.norm_kind = NormKind::rms;
        config.model.gated = true;
        config.model.positions = Positions::rotary;
        config.model.head_size = 4;
        config.model.key_value_heads = 1;
      }
      const Training kept(config);
      config.model.recompute = Recompute::block;
      const Training again(config);
      EXPECT_EQ(again.loss, kept.loss);
      EXPECT_EQ(again.gradients, kept.gradients);
      EXPECT_EQ(again.maps, kept.maps);
      EXPECT_GT(again.maps.size(), 0u);
      EXPECT_LT(again.bytes, kept.bytes);
      ModelConfig deeper = config.model;
      deeper.layers += 5;
      const std::size_t N = std::size_t(config.micro_batch()) * std::size_t(config.model.context);
      const std::size_t input = (N * std::size_t(config.model.channels) * sizeof(Stored) + 63) / 64 * 64;
      EXPECT_EQ(activation_bytes(deeper, config.micro_batch()), again.bytes + 5 * input);
    }
}

TEST(WithoutGradients, NothingIsAllocatedForThemAndNoBackwardPassRuns) {
  const RunConfig config = small_config();
  const ExecSpace exec;
  ParameterStore store(decoder_parameters(config.model), Gradients::none);
  store.initialise(exec, 3);
  EXPECT_EQ(store.gradients().size(), 0u);
  EXPECT_EQ(store.gradient2("token_embedding.weight").data(), nullptr);
  const Decoder decoder(config.model, store);
  ActivationArena arena(activation_bytes(config.model, 3));
  const DecoderActivations activations(arena, config.model, 3);
  const auto tokens = on_device(random_tokens(config, 1));
  decoder.forward(exec, tokens, DropoutKey{}, activations);
  try {
    decoder.loss_backward(exec, tokens, 1, activations);
    FAIL() << "gradients went nowhere";
  } catch (const ShapeError& error) {
    EXPECT_NE(std::string(error.what()).find("c is empty"), std::string::npos) << error.what();
  }
}

TEST(ActivationPlan, ScoresOfAttentionAreOneTensorWhereTheyNeedMemory) {
  const ModelConfig model = model_of(NormPlacement::pre, 3);
  const std::size_t elements = attention_score_elements(5, model.context, model.heads);
  for (const ActivationUse use : {ActivationUse::training, ActivationUse::attention_maps, ActivationUse::losses}) {
    ActivationArena arena;
    DecoderActivations(arena, model, 5, use);
    std::vector<std::size_t> bytes;
    for (const ArenaEntry& entry : arena.entries())
      if (entry.name == "scratch.attention_scores") bytes.push_back(entry.bytes);
    EXPECT_EQ(bytes, elements > 0 ? std::vector{elements * sizeof(Stored)} : std::vector<std::size_t>{});
  }
}

// 2^33 tokens: every product of extents is counted in 64 bits.
TEST(ActivationPlan, CountsBeyond32Bits) {
  ModelConfig model = model_of(NormPlacement::pre, 2);
  model.context = 1 << 17;
  const int sequences = 1 << 16;
  for (const ActivationUse use : {ActivationUse::training, ActivationUse::attention_maps, ActivationUse::losses}) {
    ActivationArena arena;
    DecoderActivations(arena, model, sequences, use);
    double bytes = 0;
    for (const ArenaEntry& entry : arena.entries()) {
      double elements = 1;
      for (const std::size_t extent : entry.shape) elements *= double(extent);
      EXPECT_LE(entry.shape[0], std::size_t(1) << 33) << entry.name;
      EXPECT_GE(double(entry.bytes), 4 * elements) << entry.name;
      if (entry.axes == "N,3C") {
        EXPECT_EQ(entry.shape[0], std::size_t(1) << 33) << entry.name;
      }
      bytes += double(entry.bytes);
    }
    EXPECT_NEAR(double(arena.bytes()), bytes, 64.0 * double(arena.entries().size()));
  }
}

}  // namespace
}  // namespace dekoder::testing
