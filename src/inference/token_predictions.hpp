// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/token_dataset.hpp"
#include "io/run/prediction_file.hpp"
#include "model/decoder.hpp"

namespace dekoder {

/// A stretch of held-out tokens that are predicted, the first of them after the token before it alone.
struct PredictionWindow {
  std::uint64_t first = 0;  ///< its place in the held-out part, from 0
  std::uint64_t tokens = 0;

  bool operator==(const PredictionWindow&) const = default;
};

/// `count` windows of a held-out part of M = `held_out` tokens, at least one, which do not overlap: window i begins
/// at floor(i M / count), wherever a model's context ends, and has `context` tokens, or all M of a shorter part. 0:
/// all M tokens in windows that follow each other, the last one shorter, as ValidationWindows. Throws ConfigError
/// where there are not so many.
std::vector<PredictionWindow> prediction_windows(std::uint64_t held_out, int context, int count);

/// Appends rank, guess, probabilities and best tokens of one position to the table, in double from the logits of
/// the vocabulary. Throws DivergedError where a logit is not finite.
void append_prediction(std::span<const Real> logits, Token truth, PredictionTable& table);

/// The table of the windows, with the `top` best tokens of each: forward passes over the B sequences of
/// `activations`, which serve as scratch, without dropout. Logits come from the device chunk by chunk.
PredictionTable predict_tokens(const ExecSpace& exec, const TokenDataset& data,
                               std::span<const PredictionWindow> windows, int top, const Decoder& decoder,
                               const DecoderActivations& activations);

}  // namespace dekoder
