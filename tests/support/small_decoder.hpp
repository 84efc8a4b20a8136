// SPDX-License-Identifier: Apache-2.0
// A decoder small enough for exhaustive checks, on tokens drawn from a seed.
#pragma once

#include "train/training_model.hpp"

namespace dekoder::testing {

inline RunConfig small_config() {
  RunConfig config;
  config.model.layers = 2;
  config.model.heads = 2;
  config.model.channels = 10;
  config.model.feed_forward = 14;
  config.model.context = 7;
  config.model.vocabulary = 11;
  config.model.vocabulary_multiple = 4;
  config.training.batch = 3;
  return config;
}

inline HostTokenTensor2 random_tokens(const RunConfig& config, std::uint64_t seed) {
  HostTokenTensor2 tokens("tokens", std::size_t(config.micro_batch()), std::size_t(config.model.context));
  const RandomStream stream(seed, site_of("test.tokens"));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens.data()[i] = static_cast<Token>(stream.bits32(i) % std::uint32_t(config.model.vocabulary));
  return tokens;
}

inline TokenTensor2 on_device(const HostTokenTensor2& tokens) {
  return Kokkos::create_mirror_view_and_copy(MemSpace(), tokens);
}

}  // namespace dekoder::testing
