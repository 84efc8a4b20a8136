// SPDX-License-Identifier: Apache-2.0
#include "model/decoder.hpp"

#include "support/host_tensor.hpp"
#include "support/small_decoder.hpp"

namespace dekoder::testing {
namespace {

// What the head gives for all tokens at once it gives in chunks, whose last one is shorter.
TEST(Decoder, ChunksOfTheHeadAddUpToTheWhole) {
  for (const bool tied : {true, false})
    for (const int chunk : {1, 5, 20, 21}) {  // of 21 tokens
      SCOPED_TRACE(fmt::format("tied={} chunk={}", tied, chunk));
      RunConfig config = small_config();
      config.model.tied_head = tied;
      const ExecSpace exec;
      TrainingModel model(config);
      model.store().initialise(exec, 3);
      const TokenTensor2 inputs = on_device(random_tokens(config, 1)),
                         targets = on_device(random_tokens(config, 2));
      const Decoder& decoder = model.decoder();
      const DecoderActivations& whole = model.activations();
      ASSERT_EQ(whole.logits.extent(0), 21u);
      DecoderActivations parts = whole;
      parts.logits = rows(whole.logits, 0, chunk);

      decoder.forward(exec, inputs, DropoutKey{}, whole);
      const double loss = decoder.loss_backward(exec, targets, Real(0.1), whole);
      exec.fence();
      const auto losses = clone(whole.losses), gradients = clone(model.store().gradients());
      std::vector<double> grad_residual;
      whole.grad_residual.visit([&](const auto& gradient) { grad_residual = values_of(gradient); });
      Kokkos::deep_copy(model.store().gradients(), 0);
      Kokkos::deep_copy(whole.losses, Real(NAN));
      decoder.forward(exec, inputs, DropoutKey{}, parts);
      EXPECT_NEAR(decoder.loss_backward(exec, targets, Real(0.1), parts), loss, 1e-5 * loss);
      exec.fence();
      EXPECT_TRUE(near(whole.losses, values_of(losses), 1e-5));
      whole.grad_residual.visit([&](const auto& gradient) { EXPECT_TRUE(near(gradient, grad_residual, 1e-6)); });
      EXPECT_TRUE(near(model.store().gradients(), values_of(gradients), 1e-6));
      Kokkos::deep_copy(whole.losses, Real(NAN));
      decoder.losses(exec, targets, parts);
      exec.fence();
      EXPECT_TRUE(near(whole.losses, values_of(losses), 1e-5));
    }
}

TEST(Decoder, LogitsOfAChunkOnCpusStayWithin256MiB) {
  ModelConfig model;
  for (const int vocabulary : {1, 256, 50257, 1 << 20, (1 << 22) - 1, 1 << 22}) {
    model.vocabulary = vocabulary;
    const long most = (long(64) << 20) / padded_vocabulary(model), chunk = head_chunk(model, 1 << 20, true);
    EXPECT_LE(chunk, std::max(most, 16L)) << vocabulary;
    EXPECT_GT(2 * chunk, std::min(most, 1L << 20)) << vocabulary;
    EXPECT_EQ(chunk & (chunk - 1), 0) << vocabulary << ": a power of two";
    EXPECT_EQ(head_chunk(model, 9, true), 9) << vocabulary << ": no more than there are";
  }
}

TEST(Decoder, LogitsOfAChunkOnGpusStayWithin1GiBAnd16384Tokens) {
  ModelConfig model;
  for (const int vocabulary : {1, 256, 16384, 50257, 1 << 20, 1 << 22}) {
    model.vocabulary = vocabulary;
    const long most = std::min((long(256) << 20) / padded_vocabulary(model), 16384L);
    const long chunk = head_chunk(model, 1 << 20, false);
    EXPECT_LE(chunk, most) << vocabulary;
    EXPECT_GT(2 * chunk, most) << vocabulary;
    EXPECT_EQ(chunk & (chunk - 1), 0) << vocabulary << ": a power of two";
    EXPECT_EQ(head_chunk(model, 9, false), 9) << vocabulary << ": no more than there are";
  }
}

TEST(Decoder, VocabularyIsRoundedUpToItsMultiple) {
  ModelConfig model;
  for (const auto [vocabulary, multiple, padded] :
       {std::array{1, 64, 64}, {64, 64, 64}, {65, 64, 128}, {11, 1, 11}}) {
    model.vocabulary = vocabulary;
    model.vocabulary_multiple = multiple;
    EXPECT_EQ(padded_vocabulary(model), padded) << vocabulary << " in multiples of " << multiple;
  }
}

TEST(Decoder, EveryParameterStartsAsItsInitialisationSays) {
  RunConfig config = small_config();
  ModelConfig& model = config.model;
  model.tied_head = false;
  const double C = model.channels, F = model.feed_forward, L = model.layers;
  using Kind = InitialValues::Kind;
  for (const bool gpt2 : {true, false}) {
    model.initialisation = gpt2 ? Initialisation::gpt2 : Initialisation::torch_linear;
    const ParameterLayout layout = decoder_parameters(model);
    for (const ParameterEntry& entry : layout.entries()) {
      const std::string& name = entry.name;
      const auto ends = [&](const char* end) { return name.ends_with(end); };
      Kind kind = gpt2 ? Kind::normal : Kind::uniform;
      double scale = gpt2 ? 0.02 : 1 / std::sqrt(name.find(".down.") != std::string::npos ? F : C);
      if (ends("embedding.weight"))
        kind = Kind::normal, scale = gpt2 ? 0.02 : 1.0;
      else if (ends(".gain"))
        kind = Kind::constant, scale = 1;
      else if (ends("norm.bias") || (gpt2 && ends(".bias")))
        kind = Kind::constant, scale = 0;
      else if (gpt2 && (ends("output.weight") || ends("down.weight")))
        scale = 0.02 / std::sqrt(2 * L);
      EXPECT_EQ(entry.initial.kind, kind) << name << (gpt2 ? " of gpt2" : " of torch_linear");
      EXPECT_DOUBLE_EQ(entry.initial.scale, scale) << name << (gpt2 ? " of gpt2" : " of torch_linear");
      EXPECT_EQ(entry.decays, ends(".weight")) << name;
    }
    EXPECT_EQ(layout.entries().size(), 2u + 12u * 2u + 2u + 2u) << "embeddings, two blocks, final norm, head";
  }
}

TEST(ParameterStore, InitialValuesAreDrawnAsTheyAreNamed) {
  constexpr int count = 100'000;
  ParameterLayout layout;
  layout.add("constant", "N", {count}, false, {InitialValues::Kind::constant, 0.75});
  layout.add("normal", "N", {count}, false, {InitialValues::Kind::normal, 3.0});
  layout.add("uniform", "N", {count}, false, {InitialValues::Kind::uniform, 0.5});
  ParameterStore store(layout);
  store.initialise(ExecSpace(), 1);
  const auto moments = [&](const char* name) {
    double sum = 0, squares = 0, largest = 0;
    for (const double value : values_of(ParameterStore::flat_slice(store.values(), layout.find(name))))
      sum += value, squares += value * value, largest = std::max(largest, std::abs(value));
    return std::array{sum / count, squares / count, largest};
  };
  EXPECT_EQ(moments("constant"), (std::array{0.75, 0.5625, 0.75}));
  const auto [normal_mean, normal_square, normal_largest] = moments("normal");
  EXPECT_NEAR(normal_mean, 0, 5 * 3 / std::sqrt(count));  // five standard deviations, here and below
  EXPECT_NEAR(normal_square, 9, 5 * 9 * std::sqrt(2.0 / count));
  EXPECT_GT(normal_largest, 3 * 3);
  const auto [uniform_mean, uniform_square, uniform_largest] = moments("uniform");
  EXPECT_NEAR(uniform_mean, 0, 5 * 0.5 / std::sqrt(3.0 * count));
  EXPECT_NEAR(uniform_square, 0.25 / 3, 5 * 0.25 * std::sqrt(4.0 / 45 / count));
  EXPECT_LE(uniform_largest, 0.5);
  EXPECT_GT(uniform_largest, 0.499);
}

TEST(FeedForwardScratch, HoldsTheSumsOfTheWiderSide) {
  for (const auto [F, C, gated] : {std::array{4, 10, 0}, {10, 4, 0}, {5, 4, 1}, {4, 10, 1}}) {
    ActivationArena measuring;
    ModelConfig model;
    model.feed_forward = F, model.channels = C, model.gated = gated == 1;
    const FeedForwardScratch scratch(measuring, 130, model);
    EXPECT_EQ(scratch.partials.extent(0), std::size_t(row_blocks(130)));
    EXPECT_EQ(scratch.partials.extent(1), 10u) << "F=" << F << " C=" << C;
  }
}

}  // namespace
}  // namespace dekoder::testing
