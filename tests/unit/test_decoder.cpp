// SPDX-License-Identifier: Apache-2.0
#include "model/decoder.hpp"

#include "support/host_tensor.hpp"
#include "support/small_decoder.hpp"

namespace dekoder::testing {
namespace {

TokenTensor2 on_device(const HostTokenTensor2& tokens) {
  const TokenTensor2 copy("tokens", tokens.extent(0), tokens.extent(1));
  Kokkos::deep_copy(copy, tokens);
  return copy;
}

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
      const auto grad_residual = clone(whole.grad_residual);
      Kokkos::deep_copy(model.store().gradients(), 0);
      Kokkos::deep_copy(whole.losses, Real(NAN));
      decoder.forward(exec, inputs, DropoutKey{}, parts);
      EXPECT_NEAR(decoder.loss_backward(exec, targets, Real(0.1), parts), loss, 1e-5 * loss);
      exec.fence();
      EXPECT_TRUE(near(whole.losses, values_of(losses), 1e-5));
      EXPECT_TRUE(near(whole.grad_residual, values_of(grad_residual), 1e-6));
      EXPECT_TRUE(near(model.store().gradients(), values_of(gradients), 1e-6));
      Kokkos::deep_copy(whole.losses, Real(NAN));
      decoder.losses(exec, targets, parts);
      exec.fence();
      EXPECT_TRUE(near(whole.losses, values_of(losses), 1e-5));
    }
}

TEST(Decoder, LogitsOfAChunkStayWithin256MiB) {
  ModelConfig model;
  for (const int vocabulary : {1, 256, 50257, 1 << 20, (1 << 22) - 1, 1 << 22}) {
    model.vocabulary = vocabulary;
    const long most = (long(64) << 20) / padded_vocabulary(model), chunk = head_chunk(model, 1 << 20);
    EXPECT_LE(chunk, std::max(most, 16L)) << vocabulary;
    EXPECT_GT(2 * chunk, std::min(most, 1L << 20)) << vocabulary;
    EXPECT_EQ(chunk & (chunk - 1), 0) << vocabulary << ": a power of two";
    EXPECT_EQ(head_chunk(model, 9), 9) << vocabulary << ": no more than there are";
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

}  // namespace
}  // namespace dekoder::testing
