// SPDX-License-Identifier: Apache-2.0
// Generation with a key/value cache against whole forward passes, and the choice of a token.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "inference/generator.hpp"
#include "support/host_tensor.hpp"
#include "support/small_decoder.hpp"

namespace dekoder::testing {
namespace {

/// Logits of every position of `tokens` by one forward pass over all of them.
auto whole_logits(const ModelConfig& model, const Decoder& decoder, const TokenTensor2& tokens) {
  ActivationArena measure;
  DecoderActivations(measure, model, 1);
  ActivationArena arena(measure.bytes());
  const DecoderActivations activations(arena, model, 1);
  decoder.forward(ExecSpace(), tokens, DropoutKey{}, activations);
  const Tensor2 logits("logits", std::size_t(model.context), std::size_t(padded_vocabulary(model)));
  decoder.logits(ExecSpace(), activations, logits);
  return on_host(logits);
}

void spread_parameters(ParameterStore& store) {
  store.initialise(ExecSpace(), 3);
  change(store.values_to_write(), [](const auto& values) {
    for (std::size_t i = 0; i < values.size(); ++i) values(i) += Real(0.3 * RandomStream(5, 6).normal(i));
  });
}

class CachedForward : public ::testing::TestWithParam<void (*)(ModelConfig&)> {};

TEST_P(CachedForward, GivesTheLogitsOfTheWholeForward) {
  RunConfig config = small_config();
  GetParam()(config.model);
  config.model.dropout = 0.5;  // must not act outside of training
  config.training.batch = 1;
  ParameterStore store(decoder_parameters(config.model));
  spread_parameters(store);
  const Decoder decoder(config.model, store);
  const HostTokenTensor2 tokens = random_tokens(config, 4);
  const auto expected = whole_logits(config.model, decoder, on_device(tokens));

  ModelConfig one_token = config.model;
  one_token.context = 1;
  ActivationArena measure;
  DecoderActivations(measure, one_token, 1);
  ActivationArena arena(measure.bytes());
  const DecoderActivations activations(arena, one_token, 1);
  KeyValueCache cache(config.model, 1);
  const TokenTensor2 token("token", 1, 1);
  const Tensor2 logits("logits", 1, expected.extent(1));
  for (int t = 0; t < config.model.context; ++t) {
    set_element(token, 0, tokens(0, t));
    decoder.forward_cached(ExecSpace(), token, cache, activations);
    decoder.logits(ExecSpace(), activations, logits);
    const auto got = on_host(logits);
    for (int v = 0; v < config.model.vocabulary; ++v)
      ASSERT_NEAR(got(0, v), expected(t, v), 2e-5) << "position " << t << " token " << v;
  }
  EXPECT_THROW(decoder.forward_cached(ExecSpace(), token, cache, activations), ShapeError);
}

INSTANTIATE_TEST_SUITE_P(Models, CachedForward,
                         ::testing::Values([](ModelConfig&) {},
                                           [](ModelConfig& m) { m.norm = NormPlacement::post; },
                                           [](ModelConfig& m) {
                                             m.positions = Positions::rotary, m.head_size = 6,
                                             m.key_value_heads = 1;
                                             m.qk_norm = true;
                                           },
                                           [](ModelConfig& m) { m.sliding_window = {3, 0}; }));

TEST(Generator, GreedyTextIsThatOfWholeForwardsAndGoesOnPastTheContext) {
  RunConfig config = small_config();
  config.training.batch = 1;
  ParameterStore store(decoder_parameters(config.model));
  spread_parameters(store);
  const Decoder decoder(config.model, store);
  Generator generator(decoder, config.model.vocabulary);
  SamplingConfig sampling;
  sampling.temperature = 0;
  sampling.tokens = 20;
  const std::vector<Token> prompt = {1, 5, 2};
  std::vector<Token> text;
  generator.generate(ExecSpace(), prompt, sampling, [&](Token token) {
    text.push_back(token);
    return true;
  });
  ASSERT_EQ(text.size(), 20u);

  // The first tokens, up to the context, by whole forward passes.
  std::vector<Token> known = prompt;
  for (std::size_t i = 0; known.size() <= std::size_t(config.model.context); ++i) {
    const TokenTensor2 tokens("tokens", 1, std::size_t(config.model.context));
    for (std::size_t t = 0; t < known.size(); ++t) set_element(tokens, t, known[t]);
    const auto logits = whole_logits(config.model, decoder, tokens);
    const Real* row = &logits(int(known.size()) - 1, 0);
    const Token best = Token(std::max_element(row, row + config.model.vocabulary) - row);
    ASSERT_EQ(text[i], best) << "token " << i;
    known.push_back(best);
  }
  std::vector<Token> again;
  generator.generate(ExecSpace(), prompt, sampling, [&](Token token) {
    again.push_back(token);
    return again.size() < 5;
  });
  EXPECT_EQ(again, std::vector<Token>(text.begin(), text.begin() + 5));
}

SamplingConfig sampling_of(double temperature, int top_k, double top_p) {
  SamplingConfig sampling;
  sampling.temperature = temperature;
  sampling.top_k = top_k;
  sampling.top_p = top_p;
  return sampling;
}

TEST(SampleToken, FollowsTemperatureTopKAndTopP) {
  // probabilities 0.5, 0.25, 0.125, 0.125
  const std::vector<Real> logits = {Real(std::log(0.125)), Real(std::log(0.5)), Real(std::log(0.25)),
                                    Real(std::log(0.125))};
  EXPECT_EQ(sample_token(logits, sampling_of(0, 0, 1), 0.99), 1);
  const auto share = [&](const SamplingConfig& sampling, int token) {
    int hits = 0;
    for (int i = 0; i < 1000; ++i) hits += sample_token(logits, sampling, (i + 0.5) / 1000) == token;
    return hits / 1000.0;
  };
  EXPECT_NEAR(share(sampling_of(1, 0, 1), 1), 0.5, 2e-3);
  EXPECT_NEAR(share(sampling_of(1, 0, 1), 2), 0.25, 2e-3);
  EXPECT_NEAR(share(sampling_of(1, 2, 1), 1), 2.0 / 3, 2e-3);
  EXPECT_EQ(share(sampling_of(1, 2, 1), 0), 0);
  EXPECT_NEAR(share(sampling_of(1, 0, 0.7), 2), 1.0 / 3, 2e-3);  // 0.5 + 0.25 is the smallest set of mass 0.7
  EXPECT_EQ(share(sampling_of(1, 0, 0.5), 2), 0);
  EXPECT_NEAR(share(sampling_of(0.5, 0, 1), 1), 0.25 / (0.25 + 0.0625 + 2 * 0.015625), 2e-3);
}

TEST(SampleToken, LogitsThatAreNotFiniteAreDivergence) {
  for (const Real bad : {Real(NAN), Real(INFINITY), -Real(INFINITY)})
    for (const std::size_t place : {0u, 2u, 4u})
      for (const double temperature : {0.0, 1.0}) {
        std::vector<Real> logits = {1, 5, 2, 4, 3};
        logits[place] = bad;
        try {
          sample_token(logits, sampling_of(temperature, 0, 1), 0.5);
          ADD_FAILURE() << bad << " at " << place << " gave a token";
        } catch (const DivergedError& error) {
          EXPECT_EQ(error.code(), ExitCode::diverged);
          EXPECT_NE(std::string(error.what()).find(fmt::format("the logit of token {} is not finite", place)),
                    std::string::npos)
              << error.what();
        }
      }
}

TEST(Generator, ParametersThatAreNotFiniteEndInAMessage) {
  const RunConfig config = small_config();
  ParameterStore store(decoder_parameters(config.model), Gradients::none);
  store.initialise(ExecSpace(), 3);
  const ParameterEntry& entry = store.layout().find("blocks.00.attention.output.weight");
  Kokkos::deep_copy(ParameterStore::flat_slice(store.values_to_write(), entry), Real(NAN));
  const Decoder decoder(config.model, store);
  const std::vector<Token> prompt = {1, 2};
  EXPECT_THROW(Generator(decoder, config.model.vocabulary)
                   .generate(ExecSpace(), prompt, SamplingConfig{}, [](Token) { return true; }),
               DivergedError);
}

TEST(SampleToken, TakesTheLowestOfEquals) {
  EXPECT_EQ(sample_token(std::vector<Real>{0, 1, 1}, sampling_of(0, 0, 1), 0), 1);
}

}  // namespace
}  // namespace dekoder::testing
