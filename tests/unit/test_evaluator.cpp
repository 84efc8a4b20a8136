// SPDX-License-Identifier: Apache-2.0
// Validation loss and bits per byte against the losses of single tokens, computed apart from whole logits in
// double.
#include "train/evaluator.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "data/prepare_tokens.hpp"
#include "model/model_summary.hpp"
#include "support/host_tensor.hpp"
#include "support/scratch_folder.hpp"
#include "support/small_decoder.hpp"

namespace dekoder::testing {
namespace {

/// Characters of one, two, three and four bytes, in an order that does not repeat.
std::string text_of(int characters) {
  const std::vector<std::string> letters = {"a", "b", "ä", "ß", "€", "字", "😀", "\n"};
  const RandomStream stream(3, site_of("test.text"));
  std::string text;
  for (const std::string& letter : letters) text += letter;
  for (int i = int(letters.size()); i < characters; ++i)
    text += letters[stream.bits32(std::uint64_t(i)) % std::uint32_t(letters.size())];
  return text;
}

class EvaluatorFixture : public ::testing::Test {
 protected:
  EvaluatorFixture()
      : mixture_(TokenDataset(token_file())),
        data_(mixture_.sources()[0]),
        store_((config_ = config_of(data_), decoder_parameters(config_.model))) {
    store_.initialise(ExecSpace(), 3);
    change(store_.values_to_write(), [](const auto& values) {
      for (std::size_t i = 0; i < values.size(); ++i) values(i) += Real(0.3 * RandomStream(5, 6).normal(i));
    });
  }
  std::filesystem::path token_file() const {
    const std::filesystem::path file = scratch_ / "tokens.h5";
    prepare_tokens(scratch_.write("text.txt", text_of(80)), file, TokenizerKind::characters, 0.5);
    return file;
  }
  static RunConfig config_of(const TokenDataset& data) {
    RunConfig config = small_config();
    config.model.vocabulary = data.vocabulary();
    return config;
  }

  /// -log softmax of each of the first N held-out tokens, window by window, one window at a time.
  std::vector<double> token_losses(const Decoder& decoder, std::size_t N) const {
    const auto T = std::size_t(config_.model.context), V = std::size_t(config_.model.vocabulary);
    std::vector<Token> tokens(N + 1);
    data_.read(data_.training_tokens() - 1, tokens);
    ActivationArena arena(activation_bytes(config_.model, 1));
    const DecoderActivations activations(arena, config_.model, 1);
    const TokenTensor2 inputs("inputs", 1, T);
    const StoredTensor2 logits("logits", T, std::size_t(padded_vocabulary(config_.model)));
    const auto host_inputs = Kokkos::create_mirror_view(inputs);
    const auto host = Kokkos::create_mirror_view(logits);
    std::vector<double> losses;
    while (losses.size() < N) {
      const std::size_t first = losses.size(), count = std::min(T, N - first);
      Kokkos::deep_copy(host_inputs, 0);
      for (std::size_t t = 0; t < count; ++t) host_inputs(0, t) = tokens[first + t];
      Kokkos::deep_copy(inputs, host_inputs);
      decoder.forward(ExecSpace(), inputs, DropoutKey{}, activations);
      decoder.logits(ExecSpace(), activations, logits);
      Kokkos::deep_copy(host, logits);
      for (std::size_t t = 0; t < count; ++t) {
        double total = 0;
        for (std::size_t v = 0; v < V; ++v) total += std::exp(double(host(t, v)));
        losses.push_back(std::log(total) - double(host(t, std::size_t(tokens[first + t + 1]))));
      }
    }
    return losses;
  }

  /// Bytes of the first N held-out characters in the text.
  std::size_t bytes(std::size_t N) const {
    std::vector<Token> tokens(N);
    data_.read(data_.training_tokens(), tokens);
    return data_.tokenizer().decode(tokens).size();
  }

  testing_support::ScratchFolder scratch_{"evaluator"};
  DataMixture mixture_;
  const TokenDataset& data_;
  RunConfig config_;
  ParameterStore store_;
};

class EvaluatorTest : public EvaluatorFixture, public ::testing::WithParamInterface<long> {};

TEST_P(EvaluatorTest, IsTheMeanOfTheLossesOfSingleTokens) {
  config_.evaluation.tokens = GetParam();
  const Decoder decoder(config_.model, store_);
  ActivationArena arena(activation_bytes(config_.model, config_.micro_batch()));
  const DecoderActivations activations(arena, config_.model, config_.micro_batch());
  const Evaluator evaluator(mixture_, config_.evaluation, decoder, activations);
  std::size_t batches = 0;
  const auto got = evaluator.evaluate(ExecSpace(), [&] {
    ++batches;
    return false;
  });
  ASSERT_TRUE(got);

  const std::size_t held_out = data_.validation_tokens(), N = GetParam() == 0 ? held_out : std::size_t(GetParam());
  EXPECT_EQ(batches, (N + 20) / 21) << "a batch without a window is computed";
  ASSERT_EQ(held_out, 40u);
  ASSERT_GT(bytes(N), N + N / 4) << "no characters of several bytes: nothing tells bytes from tokens";
  const std::vector<double> losses = token_losses(decoder, N);
  double nats = 0;
  for (const double loss : losses) nats += loss;
  EXPECT_EQ(got->all.tokens, N);
  EXPECT_NEAR(got->all.loss, nats / double(N), 1e-5);
  EXPECT_NEAR(got->all.bits_per_byte, nats / std::log(2.0) / double(bytes(N)), 1e-5);
}

// The batch has 3 windows of 7 tokens: one ragged window alone, whole windows, one token in the second batch, the
// second batch ragged, and the whole held-out part.
INSTANTIATE_TEST_SUITE_P(Tokens, EvaluatorTest, ::testing::Values(5, 7, 21, 22, 37, 0));

TEST_F(EvaluatorFixture, StopsBetweenBatchesWithoutAResult) {
  const Decoder decoder(config_.model, store_);
  ActivationArena arena(activation_bytes(config_.model, config_.micro_batch()));
  const DecoderActivations activations(arena, config_.model, config_.micro_batch());
  int asked = 0;
  EXPECT_FALSE(Evaluator(mixture_, config_.evaluation, decoder, activations).evaluate(ExecSpace(), [&] {
    return ++asked == 2;
  }));
  EXPECT_EQ(asked, 2);
}

}  // namespace
}  // namespace dekoder::testing
