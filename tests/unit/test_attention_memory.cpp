// SPDX-License-Identifier: Apache-2.0
// Capturing attention maps takes the memory of one head of the longest probe, and gives the same bits.
#include <gtest/gtest.h>

#include "inference/attention_capture.hpp"
#include "kernels/attention/statistics.hpp"
#include "model/model_summary.hpp"
#include "support/small_decoder.hpp"

namespace dekoder::testing {
namespace {

/// A decoder with random parameters, and activations for B sequences.
struct Captured {
  RunConfig config;
  ParameterStore store;
  Decoder decoder;
  ActivationArena arena;
  DecoderActivations activations;
  AttentionFileInfo info;

  Captured(const RunConfig& config_, int sequences, const std::vector<int>& lengths)
      : config(config_),
        store(decoder_parameters(config.model), Gradients::none),
        decoder(config.model, store),
        arena(activation_bytes(config.model, sequences, ActivationUse::attention_maps)),
        activations(arena, config.model, sequences, ActivationUse::attention_maps) {
    store.initialise(ExecSpace(), 5);
    for (int l = 0; l < config.model.layers; ++l) info.layers.push_back(l);
    for (int h = 0; h < config.model.heads; ++h) info.heads.push_back(h);
    for (const int length : lengths) {
      AttentionProbe& probe = info.probes.emplace_back();
      for (int t = 0; t < length; ++t) probe.tokens.push_back(Token(3 * t * t % config.model.vocabulary));
    }
  }
};

RunConfig three_heads() {
  RunConfig config = small_config();
  config.model.heads = 3;
  config.model.channels = 12;
  return config;
}

TEST(AttentionCapture, OneHeadAtATimeGivesTheBitsOfAllAtOnce) {
  const Captured c(three_heads(), 2, {5, 7, 1});
  const ExecSpace exec;
  const std::vector<AttentionMaps> maps = AttentionCapture(c.decoder, c.activations, c.info).capture(exec);
  ASSERT_EQ(maps.size(), 3u);
  for (std::size_t p = 0; p < maps.size(); ++p) {
    const std::vector<Token>& tokens = c.info.probes[p].tokens;
    const int n = int(tokens.size());
    const TokenTensor2 inputs("inputs", 2, std::size_t(c.config.model.context));
    const auto host = Kokkos::create_mirror_view(inputs);
    for (int t = 0; t < n; ++t) host(1, t) = tokens[std::size_t(t)];
    Kokkos::deep_copy(inputs, host);
    c.decoder.forward(exec, inputs, DropoutKey{}, c.activations);
    const MasterTensor3 weights("weights", 3, n, n);
    const AccumulatorTensor3 sums("sums", 3, n, 8);
    const MasterTensor2 statistics("statistics", 3, attention_statistic_count);
    std::size_t at = 0, at_statistic = 0;
    for (int l = 0; l < c.config.model.layers; ++l) {
      c.decoder.blocks[std::size_t(l)].attention.weights(exec, c.activations.blocks[std::size_t(l)].attention,
                                                         c.activations.scratch.attention, 1, 0, weights);
      attention_statistics(exec, weights, Kokkos::subview(inputs, 1, Kokkos::make_pair(0, n)), sums, statistics);
      const auto all = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), weights);
      const auto all_statistics = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), statistics);
      for (std::size_t i = 0; i < all.size(); ++i) ASSERT_EQ(maps[p].weights.at(at++), all.data()[i]) << p;
      for (std::size_t i = 0; i < all_statistics.size(); ++i)
        ASSERT_EQ(maps[p].statistics.at(at_statistic++), all_statistics.data()[i]) << p;
    }
    EXPECT_EQ(maps[p].weights.size(), at);
    EXPECT_EQ(maps[p].statistics.size(), at_statistic);
  }
}

std::uint64_t allocated_bytes = 0;
void count_bytes(Kokkos::Profiling::SpaceHandle, const char*, const void*, std::uint64_t bytes) {
  allocated_bytes += bytes;
}

TEST(AttentionCapture, TakesMemoryByTheLongestProbeWhateverContextAndHeads) {
  RunConfig config = three_heads();
  config.model.context = 3000;
  const ExecSpace exec;
  for (const std::vector<int>& lengths : {std::vector<int>{1}, std::vector<int>{2, 50, 7}}) {
    const Captured c(config, 1, lengths);
    allocated_bytes = 0;
    Kokkos::Tools::Experimental::set_allocate_data_callback(count_bytes);
    const AttentionCapture capture(c.decoder, c.activations, c.info);
    const std::uint64_t taken = allocated_bytes;
    capture.capture(exec);  // libraries set themselves up
    allocated_bytes = 0;
    capture.capture(exec);
    Kokkos::Tools::Experimental::set_allocate_data_callback(nullptr);
    if (device_is_host) {
      EXPECT_EQ(allocated_bytes, 0u) << "each capture takes memory";
    }
    const std::size_t longest = lengths.size() == 1 ? 1 : 50;
    EXPECT_GE(taken, attention_capture_bytes(1, 3000, longest));
    EXPECT_LE(taken, attention_capture_bytes(1, 3000, longest) + 4 * 8) << "four buffers of whole words";
    EXPECT_LT(taken, 30'000u) << "one map of a whole context has 36 MB";
  }
}

}  // namespace
}  // namespace dekoder::testing
