// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/decoder.hpp"

namespace dekoder {

/// Picks a token from the logits of one position. temperature 0 takes the most likely one (the lowest index of
/// equals); else softmax(logits / temperature) over the top_k most likely (0: all), cut to the smallest set of mass
/// top_p (Holtzman et al. 2020, section 3.1), drawn by `uniform` in [0, 1). Throws DivergedError where a logit is
/// not finite.
int sample_token(std::span<const Real> logits, const SamplingConfig& sampling, double uniform);

/// Text generation with a key/value cache: the prompt in one pass, then one token at a time.
class Generator {
 public:
  /// Draws from the first `tokens` of the model's vocabulary: those that the tokenizer has.
  Generator(const Decoder& decoder, int tokens);

  /// Reads `prompt` (at least one token) and hands sampling.tokens further tokens to `emit`, which returns false to
  /// stop. Draw i is a function of (sampling.seed, i). Where the context is full, the newer half of it is read
  /// again.
  void generate(const ExecSpace& exec, std::span<const Token> prompt, const SamplingConfig& sampling,
                const std::function<bool(Token)>& emit);

 private:
  /// What stays of the full window.
  std::vector<Token> newer_half() const;
  /// Begins anew with `tokens`, which are none or at most the context.
  void read(const ExecSpace& exec, const std::vector<Token>& tokens);
  void feed(const ExecSpace& exec, Token token);

  const Decoder& decoder_;
  int tokens_;
  ActivationArena arena_;
  DecoderActivations activations_;
  KeyValueCache cache_;
  TokenTensor2 token_;         ///< (1,1)
  std::vector<Token> window_;  ///< tokens in the cache
};

}  // namespace dekoder
