// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "model/decoder.hpp"

namespace dekoder {

/// How tokens are drawn. The rules and their order are those of transformers' generate(do_sample=True): repetition
/// penalty, temperature, top k, top p, min p (GenerationMixin._get_logits_processor).
struct Drawing : SamplingConfig {
  Drawing(const SamplingConfig& config) : SamplingConfig(config) {}

  double min_p =
      0;  ///< drop what is less likely than this share of the most likely (Nguyen et al. 2024); 0: nothing
  /// Logits of tokens that the text has, its prompt included, are divided by it where positive, multiplied where
  /// negative (Keskar et al. 2019, section 4.1, with the sign seen to); 1: nothing.
  double repetition_penalty = 1;
  /// Log-probabilities of the token drawn and of so many best ones are told; -1: none.
  int log_probabilities = -1;
};

/// A token and its probability by the model's own softmax, before all rules of drawing.
struct RankedToken {
  Token token;
  double log_probability;  ///< nats
};

struct DrawnToken {
  Token token;
  double log_probability = 0;     ///< where Drawing asks for them
  std::vector<RankedToken> best;  ///< in descending order; the lower index first of equals
};

/// The tokens that may be drawn, most likely first, of equals the lowest index, and their shares of the draw, whose
/// sum need not be 1: softmax(logits / temperature) over the top_k most likely (0: all), cut to the smallest set of
/// mass top_p (Holtzman et al. 2020, section 3.1), then to those of at least min_p times the first one's.
/// temperature 0: the first alone. Throws DivergedError where a logit is not finite.
std::vector<std::pair<Token, double>> shares_of_draw(std::span<const Real> logits, const Drawing& drawing);

/// One of them, by `uniform` in [0, 1).
Token sample_token(std::span<const Real> logits, const Drawing& drawing, double uniform);

/// What Drawing::repetition_penalty makes of the logits, where `seen` says of each token whether the text has it.
void penalize_repetition(const std::vector<bool>& seen, double penalty, std::span<Real> logits);

/// The model's log-probability of `token`, and the `count` best tokens with theirs, in double.
DrawnToken ranked_token(std::span<const Real> logits, Token token, int count);

/// How a Generator goes on after a token.
enum class Then { go_on, end_text, end_all };

/// Text generation with a key/value cache: a prompt in one pass, then one token at a time.
class Generator {
 public:
  /// Sequences that a Generator of a file of prompts works on at once: always so many, be they fewer, as the bits
  /// of a product may depend on its extents.
  static constexpr int together = device_is_host ? 8 : 32;

  /// Draws from the first `tokens` of the model's vocabulary: those that the tokenizer has. The decoder's context
  /// bounds the cache, and need not be that of training.
  Generator(const Decoder& decoder, int tokens, int sequences = 1);

  /// Goes on from each prompt (at least one token) with up to drawing.tokens further tokens, handed with the
  /// prompt's index to `emit`, which says how to go on. Draw i of prompt p is a function of (drawing.seed, p, i):
  /// nothing of a text depends on the other prompts, nor on their number. Where a text has filled the context, the
  /// newer half of it is read again.
  void generate(const ExecSpace& exec, std::span<const std::vector<Token>> prompts, const Drawing& drawing,
                const std::function<Then(std::size_t, const DrawnToken&)>& emit);

  /// The same for one prompt; `emit` returns false to stop.
  void generate(const ExecSpace& exec, std::span<const Token> prompt, const Drawing& drawing,
                const std::function<bool(Token)>& emit);

 private:
  /// A text in the making.
  struct Text {
    std::size_t prompt;
    RandomStream draws;
    int drawn = 0;
    std::vector<Token> window;  ///< what the next token sees; the cache has all but the last one
    std::vector<bool> seen;     ///< (V) by the repetition penalty, prompt included
  };

  Text begin(const ExecSpace& exec, std::span<const Token> prompt, std::size_t index, const Drawing& drawing,
             int b);
  /// Appends to the window, of which the newer half is left where it was full; whether that was so.
  bool append(Text& text, Token token) const;
  /// All tokens of the window but the last one into the cache of sequence b.
  void read(const ExecSpace& exec, const std::vector<Token>& window, int b);
  /// One pass over the last tokens of all texts: their logits.
  void forward(const ExecSpace& exec);
  DrawnToken draw(Text& text, int b, const Drawing& drawing);

  const Decoder& decoder_;
  int tokens_;
  ActivationArena arena_;
  DecoderActivations activations_;
  KeyValueCache cache_;
  TokenTensor2 last_;                                         ///< (B,1)
  IntTensor1 positions_;                                      ///< (B)
  Kokkos::View<Stored**, Layout, Kokkos::HostSpace> logits_;  ///< (B,V)
  std::vector<std::optional<Text>> texts_;                    ///< (B)
};

}  // namespace dekoder
