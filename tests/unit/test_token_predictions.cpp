// SPDX-License-Identifier: Apache-2.0
// Where windows lie, what one row of logits gives, and the table of a decoder against whole logits and the
// evaluator.
#include "inference/token_predictions.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "data/prepare_tokens.hpp"
#include "model/model_summary.hpp"
#include "support/host_tensor.hpp"
#include "support/scratch_folder.hpp"
#include "support/small_decoder.hpp"
#include "train/evaluator.hpp"

namespace dekoder::testing {
namespace {

using Windows = std::vector<PredictionWindow>;

TEST(PredictionWindows, BeginAtTheSamePlacesWhateverTheContext) {
  const Windows expected_of_10 = {{0, 10}, {33, 10}, {66, 10}};
  EXPECT_EQ(prediction_windows(100, 10, 3), expected_of_10);
  const Windows expected_of_33 = {{0, 33}, {33, 33}, {66, 33}};
  EXPECT_EQ(prediction_windows(100, 33, 3), expected_of_33);
  const Windows of_6 = prediction_windows(100, 10, 6);  // every other one is one of 3
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(of_6[2 * i], expected_of_10[i]);
  EXPECT_EQ(prediction_windows(7, 10, 1), (Windows{{0, 7}})) << "a part shorter than the context";
}

TEST(PredictionWindows, StayInsideAndApart) {
  for (std::uint64_t M = 1; M < 40; ++M)
    for (int T = 1; T < 12; ++T)
      for (int count = 0; count <= int(std::max<std::uint64_t>(1, M / std::uint64_t(T))); ++count) {
        const Windows windows = prediction_windows(M, T, count);
        ASSERT_EQ(windows.size(), count > 0 ? std::size_t(count) : (M + std::uint64_t(T) - 1) / std::uint64_t(T));
        std::uint64_t end = 0, tokens = 0;
        for (const PredictionWindow& window : windows) {
          ASSERT_GE(window.first, end) << M << " " << T << " " << count;
          ASSERT_GE(window.tokens, 1u);
          end = window.first + window.tokens;
          tokens += window.tokens;
        }
        ASSERT_LE(end, M);
        ASSERT_EQ(tokens, count == 0 ? M : std::uint64_t(count) * std::min(M, std::uint64_t(T)));
      }
}

TEST(PredictionWindows, RefuseMoreThanFit) {
  EXPECT_EQ(prediction_windows(100, 33, 3).size(), 3u);
  try {
    prediction_windows(100, 33, 4);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(
        error.what(),
        "--windows is 4; expected at most 3, as many of model.context 33 tokens as the held-out part of 100 "
        "has, or 0 for all of it");
  }
}

PredictionTable row_of(std::vector<Real> logits, Token truth, int top) {
  PredictionTable table;
  table.top = top;
  append_prediction(logits, truth, table);
  return table;
}

TEST(Prediction, RanksByLogitThenByToken) {
  const std::vector<Real> logits = {1, 3, 2, 3, 1, -5};
  EXPECT_EQ(row_of(logits, 1, 4).top_tokens, (std::vector<Token>{1, 3, 2, 0}));
  const std::int32_t ranks[] = {3, 0, 2, 1, 4, 5};
  for (Token truth = 0; truth < 6; ++truth) {
    EXPECT_EQ(row_of(logits, truth, 1).rank.at(0), ranks[truth]) << truth;
    EXPECT_EQ(row_of(logits, truth, 1).guess.at(0), 1);
  }
  EXPECT_EQ(row_of({0, 0, 0}, 2, 3).top_tokens, (std::vector<Token>{0, 1, 2})) << "equals, by token";
}

TEST(Prediction, ProbabilitiesAreThoseOfTheSoftmax) {
  const PredictionTable table = row_of({std::log(Real(1)), std::log(Real(2)), std::log(Real(5))}, 1, 3);
  EXPECT_FLOAT_EQ(table.truth_probability.at(0), 0.25f);
  EXPECT_FLOAT_EQ(table.guess_probability.at(0), 0.625f);
  EXPECT_FLOAT_EQ(table.surprise.at(0), std::log(4.0f));
  EXPECT_FLOAT_EQ(table.top_log_probabilities.at(2), std::log(0.125f));
}

TEST(Prediction, HoldsFarApartLogits) {
  const PredictionTable far = row_of({Real(1e30), 0, Real(-1e30)}, 1, 2);
  EXPECT_FLOAT_EQ(far.surprise.at(0), 1e30f);
  EXPECT_EQ(far.truth_probability.at(0), 0.0f);
  EXPECT_EQ(far.guess_probability.at(0), 1.0f);
  const PredictionTable sure = row_of({Real(500), 0}, 0, 1);
  EXPECT_EQ(sure.surprise.at(0), 0.0f);
  EXPECT_FALSE(std::signbit(sure.surprise.at(0)));
}

TEST(Prediction, RefusesWhatIsNotFinite) {
  for (const Real bad : {std::numeric_limits<Real>::quiet_NaN(), std::numeric_limits<Real>::infinity()})
    EXPECT_THROW(row_of({0, bad, 1}, 0, 1), DivergedError);
}

class PredictTokens : public ::testing::Test {
 protected:
  PredictTokens()
      : mixture_(TokenDataset(token_file())),
        data_(mixture_.sources()[0]),
        store_((config_ = config_of(data_), decoder_parameters(config_.model))) {
    store_.initialise(ExecSpace(), 3);
    change(store_.values_to_write(), [](const auto& values) {
      for (std::size_t i = 0; i < values.size(); ++i) values(i) += Real(0.3 * RandomStream(5, 6).normal(i));
    });
  }
  std::filesystem::path token_file() const {
    const RandomStream stream(3, site_of("test.text"));
    std::string text = "abcdefgh";
    for (int i = 0; i < 72; ++i) text += char('a' + stream.bits32(std::uint64_t(i)) % 8);
    const std::filesystem::path file = scratch_ / "tokens.h5";
    prepare_tokens(scratch_.write("text.txt", text), file, TokenizerKind::characters, 0.5);
    return file;
  }
  static RunConfig config_of(const TokenDataset& data) {
    RunConfig config = small_config();
    config.model.vocabulary = data.vocabulary();
    config.evaluation.tokens = 0;
    return config;
  }
  PredictionTable table(int windows, int top, int sequences) const {
    const Decoder decoder(config_.model, store_);
    ActivationArena arena(activation_bytes(config_.model, sequences, ActivationUse::losses));
    const DecoderActivations activations(arena, config_.model, sequences, ActivationUse::losses);
    const auto places = prediction_windows(data_.validation_tokens(), config_.model.context, windows);
    return predict_tokens(ExecSpace(), data_, places, top, decoder, activations);
  }

  testing_support::ScratchFolder scratch_{"predictions"};
  DataMixture mixture_;
  const TokenDataset& data_;
  RunConfig config_;
  ParameterStore store_;
};

TEST_F(PredictTokens, IsTheTextInOrder) {
  const PredictionTable got = table(3, 2, 2);  // 40 held-out tokens, windows of 7 from 0, 13 and 26 on
  ASSERT_EQ(got.truth.size(), 21u);
  for (std::size_t i = 0; i < 21; ++i) {
    const std::uint64_t first[] = {0, 13, 26};
    const std::uint64_t position = first[i / 7] + i % 7;
    EXPECT_EQ(got.window[i], std::int32_t(i / 7));
    EXPECT_EQ(got.position[i], std::int64_t(position));
    std::vector<Token> pair(2);
    data_.read(data_.training_tokens() - 1 + position, pair);
    EXPECT_EQ(got.input[i], pair[0]);
    EXPECT_EQ(got.truth[i], pair[1]);
  }
}

TEST_F(PredictTokens, EqualsTheSoftmaxOfWholeLogits) {
  const PredictionTable got = table(5, 3, 2);
  const auto T = std::size_t(config_.model.context), V = std::size_t(config_.model.vocabulary);
  const Decoder decoder(config_.model, store_);
  ActivationArena arena(activation_bytes(config_.model, 1));
  const DecoderActivations activations(arena, config_.model, 1);
  const TokenTensor2 inputs("inputs", 1, T);
  const StoredTensor2 logits("logits", T, std::size_t(padded_vocabulary(config_.model)));
  const auto host_inputs = Kokkos::create_mirror_view(inputs);
  const auto host = Kokkos::create_mirror_view(logits);
  for (std::size_t w = 0; w < 5; ++w) {
    for (std::size_t t = 0; t < T; ++t) host_inputs(0, t) = got.input[w * T + t];
    Kokkos::deep_copy(inputs, host_inputs);
    decoder.forward(ExecSpace(), inputs, DropoutKey{}, activations);
    decoder.logits(ExecSpace(), activations, logits);
    Kokkos::deep_copy(host, logits);
    for (std::size_t t = 0; t < T; ++t) {
      const std::size_t i = w * T + t;
      double total = 0;
      int before = 0;
      const Real of_truth = host(t, std::size_t(got.truth[i]));
      for (std::size_t v = 0; v < V; ++v) total += std::exp(double(host(t, v))), before += host(t, v) > of_truth;
      EXPECT_EQ(got.rank[i], before);
      EXPECT_NEAR(got.surprise[i], std::log(total) - double(of_truth), 1e-5);
      EXPECT_NEAR(got.truth_probability[i], std::exp(double(of_truth)) / total, 1e-6);
      for (std::size_t k = 0; k < 3; ++k)
        EXPECT_NEAR(got.top_log_probabilities[3 * i + k],
                    double(host(t, std::size_t(got.top_tokens[3 * i + k]))) - std::log(total), 1e-5);
      EXPECT_EQ(got.guess[i], got.top_tokens[3 * i]);
    }
  }
}

TEST_F(PredictTokens, MeanSurpriseIsTheLossOfTheEvaluator) {
  const PredictionTable got = table(0, 1, 3);
  ASSERT_EQ(got.truth.size(), data_.validation_tokens());
  double nats = 0;
  for (const float surprise : got.surprise) nats += double(surprise);
  const Decoder decoder(config_.model, store_);
  ActivationArena arena(activation_bytes(config_.model, 3));
  const DecoderActivations activations(arena, config_.model, 3);
  const auto loss =
      Evaluator(mixture_, config_.evaluation, decoder, activations).evaluate(ExecSpace(), [] { return false; });
  EXPECT_NEAR(nats / double(got.truth.size()), loss->all.loss, 1e-6 * loss->all.loss);
}

TEST_F(PredictTokens, HowManySequencesRunAtOnceChangesNoRow) {
  const PredictionTable one = table(0, 4, 1), four = table(0, 4, 4);
  EXPECT_EQ(one.position, four.position);
  EXPECT_EQ(one.truth, four.truth);
  for (std::size_t i = 0; i < one.surprise.size(); ++i) EXPECT_NEAR(one.surprise[i], four.surprise[i], 1e-5);
}

}  // namespace
}  // namespace dekoder::testing
