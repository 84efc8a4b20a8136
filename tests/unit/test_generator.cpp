// SPDX-License-Identifier: Apache-2.0
// Generation with a key/value cache against whole forward passes, and the choice of a token.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
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
    decoder.forward_cached(ExecSpace(), token, t, cache, activations);
    decoder.logits(ExecSpace(), activations, logits);
    const auto got = on_host(logits);
    for (int v = 0; v < config.model.vocabulary; ++v)
      ASSERT_NEAR(got(0, v), expected(t, v), 2e-5) << "position " << t << " token " << v;
  }
  EXPECT_THROW(decoder.forward_cached(ExecSpace(), token, config.model.context, cache, activations), ShapeError);
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

/// What a Generator of `sequences` draws after each prompt: tokens, and the bits of their log-probabilities.
using Drawn = std::pair<Token, double>;
std::vector<std::vector<Drawn>> texts_of(const Decoder& decoder, const std::vector<std::vector<Token>>& prompts,
                                         int sequences, const Drawing& drawing) {
  std::vector<std::vector<Drawn>> texts(prompts.size());
  Generator(decoder, decoder.model().vocabulary, sequences)
      .generate(ExecSpace(), prompts, drawing, [&](std::size_t p, const DrawnToken& drawn) {
        texts[p].emplace_back(drawn.token, drawn.log_probability);
        // They end at different times, so that others take their places.
        return texts[p].size() < 3 + p % 5 ? Then::go_on : Then::end_text;
      });
  return texts;
}

class Batches : public ::testing::TestWithParam<Positions> {};

TEST_P(Batches, ATextIsTheSameToTheBitWhateverElseIsInTheBatch) {
  RunConfig config = small_config();
  config.model.positions = GetParam();
  config.model.channels = 32;
  config.model.heads = 2;
  config.model.feed_forward = 3072;  // as long a sum as libraries split, by the number of rows
  ParameterStore store(decoder_parameters(config.model), Gradients::none);
  spread_parameters(store);
  const Decoder decoder(config.model, store);
  const auto random_prompts = [&](std::uint64_t seed, std::size_t count) {
    std::vector<std::vector<Token>> prompts(count);
    for (std::size_t p = 0; p < count; ++p)
      for (std::uint64_t i = 0; i <= RandomStream(seed, p).bits32(0) % 11; ++i)  // also longer than the context
        prompts[p].push_back(Token(RandomStream(seed, p, 1).bits32(i) % unsigned(config.model.vocabulary)));
    return prompts;
  };
  Drawing drawing = SamplingConfig{};
  drawing.log_probabilities = 0;
  drawing.repetition_penalty = 1.1;
  drawing.tokens = 6;
  const auto prompts = random_prompts(1, 13);
  const int together = Generator::together;
  const auto expected = texts_of(decoder, prompts, together, drawing);
  for (std::size_t p = 0; p < prompts.size(); p += 3) {
    ASSERT_EQ(expected[p].size(), std::min<std::size_t>(3 + p % 5, 6));
    auto others = random_prompts(2, p + 7);
    others[p] = prompts[p];
    EXPECT_EQ(texts_of(decoder, others, together, drawing)[p], expected[p]) << p << " among others";
  }
  // Alone it is the first: the same where nothing is drawn.
  drawing.temperature = 0;
  const auto greedy = texts_of(decoder, prompts, together, drawing);
  EXPECT_NE(greedy, expected);
  for (std::size_t p = 0; p < prompts.size(); p += 3) {
    const auto alone = texts_of(decoder, {prompts[p]}, together, drawing).front();
    const std::size_t both = std::min(alone.size(), greedy[p].size());
    EXPECT_EQ(std::vector(alone.begin(), alone.begin() + long(both)),
              std::vector(greedy[p].begin(), greedy[p].begin() + long(both)))
        << p << " alone";
  }
}

INSTANTIATE_TEST_SUITE_P(Positions, Batches,
                         ::testing::Values(Positions::none, Positions::learned, Positions::sinusoidal,
                                           Positions::rotary));

TEST(Generator, EachPromptHasDrawsOfItsOwnAndTheFirstThoseOfOnePrompt) {
  const RunConfig config = small_config();
  ParameterStore store(decoder_parameters(config.model), Gradients::none);
  store.initialise(ExecSpace(), 3);
  const Decoder decoder(config.model, store);
  SamplingConfig sampling;
  sampling.temperature = 2;
  sampling.tokens = 6;
  const std::vector<std::vector<Token>> prompts(4, {1, 2});
  std::vector<std::vector<Token>> texts(prompts.size());
  Generator generator(decoder, config.model.vocabulary, 4);
  generator.generate(ExecSpace(), prompts, sampling, [&](std::size_t p, const DrawnToken& drawn) {
    texts[p].push_back(drawn.token);
    return Then::go_on;
  });
  std::vector<Token> one;
  Generator(decoder, config.model.vocabulary).generate(ExecSpace(), prompts[0], sampling, [&](Token token) {
    one.push_back(token);
    return true;
  });
  EXPECT_EQ(texts[0], one);
  EXPECT_EQ(std::set<std::vector<Token>>(texts.begin(), texts.end()).size(), texts.size());
  int calls = 0;
  generator.generate(ExecSpace(), prompts, sampling, [&](std::size_t, const DrawnToken&) {
    ++calls;
    return Then::end_all;
  });
  EXPECT_EQ(calls, 1);
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

TEST(SampleToken, MinPKeepsAShareOfTheMostLikely) {
  const std::vector<Real> logits = {Real(std::log(0.1)), Real(std::log(0.5)), Real(std::log(0.4))};
  Drawing drawing = sampling_of(1, 0, 1);
  const auto kept = [&](double min_p) {
    drawing.min_p = min_p;
    return shares_of_draw(logits, drawing).size();
  };
  EXPECT_EQ(kept(0), 3u);
  EXPECT_EQ(kept(0.19), 3u);
  EXPECT_EQ(kept(0.21), 2u);
  EXPECT_EQ(kept(0.81), 1u);
  EXPECT_EQ(kept(1), 1u);
  drawing.temperature = 3;  // before it: shares of 0.8^(1/3)
  EXPECT_EQ(kept(0.81), 2u);
}

TEST(RankedToken, ProbabilitiesAreOfTheWholeVocabulary) {
  const std::vector<Real> logits = {Real(std::log(0.1)), Real(std::log(0.5)), Real(std::log(0.4))};
  const DrawnToken drawn = ranked_token(logits, 0, 2);
  EXPECT_NEAR(drawn.log_probability, std::log(0.1), 1e-6);
  ASSERT_EQ(drawn.best.size(), 2u);
  EXPECT_EQ(drawn.best[0].token, 1);
  EXPECT_NEAR(drawn.best[0].log_probability, std::log(0.5), 1e-6);
  EXPECT_EQ(drawn.best[1].token, 2);
  EXPECT_EQ(ranked_token(logits, 0, 9).best.size(), 3u);
}

TEST(SampleToken, TakesTheLowestOfEquals) {
  EXPECT_EQ(sample_token(std::vector<Real>{0, 1, 1}, sampling_of(0, 0, 1), 0), 1);
}

}  // namespace
}  // namespace dekoder::testing
