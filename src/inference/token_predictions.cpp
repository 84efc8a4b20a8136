// SPDX-License-Identifier: Apache-2.0
#include "inference/token_predictions.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "tensor/region.hpp"

namespace dekoder {

std::vector<PredictionWindow> prediction_windows(std::uint64_t held_out, int context, int count) {
  if (held_out == 0 || context < 1 || count < 0)
    throw std::logic_error(fmt::format("prediction_windows: {} of {} in {} tokens", count, context, held_out));
  const std::uint64_t M = held_out, T = std::uint64_t(context), most = std::max<std::uint64_t>(1, M / T);
  if (std::uint64_t(count) > most)
    throw ConfigError(
        "--windows is {}; expected at most {}, as many of model.context {} tokens as the held-out part of {} has, "
        "or "
        "0 for all of it",
        count, most, T, M);
  std::vector<PredictionWindow> windows;
  if (count == 0)
    for (std::uint64_t first = 0; first < M; first += T) windows.push_back({first, std::min(T, M - first)});
  for (std::uint64_t i = 0; i < std::uint64_t(count); ++i)
    windows.push_back({i * M / std::uint64_t(count), std::min(T, M)});
  return windows;
}

void append_prediction(std::span<const Real> logits, Token truth, PredictionTable& table) {
  if (truth < 0 || std::size_t(truth) >= logits.size() || table.top < 1 || std::size_t(table.top) > logits.size())
    throw std::logic_error(
        fmt::format("append_prediction: token {}, {} best of {}", truth, table.top, logits.size()));
  for (std::size_t token = 0; token < logits.size(); ++token)
    if (!std::isfinite(logits[token]))
      throw DivergedError(
          "no prediction: the logit of token {} is not finite; the parameters diverged, or are too large for {}; "
          "use "
          "an earlier checkpoint",
          token, precision_name);
  const auto before = [&](Token a, Token b) {
    const Real x = logits[std::size_t(a)], y = logits[std::size_t(b)];
    return x != y ? x > y : a < b;
  };
  std::vector<Token> best(logits.size());
  std::iota(best.begin(), best.end(), 0);
  table.rank.push_back(
      static_cast<std::int32_t>(std::ranges::count_if(best, [&](Token token) { return before(token, truth); })));
  std::partial_sort(best.begin(), best.begin() + table.top, best.end(), before);

  const double largest = double(logits[std::size_t(best.front())]);
  double total = 0;
  for (const Real logit : logits) total += std::exp(double(logit) - largest);
  const double normaliser = largest + std::log(total);
  const auto surprise = [&](Token token) { return normaliser - double(logits[std::size_t(token)]); };  // never -0
  table.truth.push_back(truth);
  table.guess.push_back(best.front());
  table.surprise.push_back(static_cast<float>(surprise(truth)));
  table.truth_probability.push_back(static_cast<float>(std::exp(-surprise(truth))));
  table.guess_probability.push_back(static_cast<float>(std::exp(-surprise(best.front()))));
  for (int place = 0; place < table.top; ++place) {
    table.top_tokens.push_back(best[std::size_t(place)]);
    table.top_log_probabilities.push_back(static_cast<float>(-surprise(best[std::size_t(place)])));
  }
}

PredictionTable predict_tokens(const ExecSpace& exec, const TokenDataset& data,
                               std::span<const PredictionWindow> windows, int top, const Decoder& decoder,
                               const DecoderActivations& activations) {
  const Region region("predictions");
  const std::size_t B = activations.sequences(), T = std::size_t(decoder.model().context);
  const TokenTensor2 inputs("predictions.inputs", B, T);
  const auto host_inputs = Kokkos::create_mirror_view(inputs);
  const auto host_logits = Kokkos::create_mirror_view(activations.logits);
  std::vector<Real> scores(std::size_t(decoder.model().vocabulary));
  PredictionTable table;
  table.top = top;
  for (std::size_t pass = 0; pass < windows.size(); pass += B) {
    const std::size_t count = std::min(B, windows.size() - pass);
    std::vector<std::vector<Token>> texts(count);  // each with the token before the window
    Kokkos::deep_copy(host_inputs, 0);             // what follows a window in its row changes nothing before it
    for (std::size_t row = 0; row < count; ++row) {
      const PredictionWindow& window = windows[pass + row];
      texts[row].resize(window.tokens + 1);
      data.read(data.training_tokens() - 1 + window.first, texts[row]);
      for (std::size_t t = 0; t < window.tokens; ++t) host_inputs(row, t) = texts[row][t];
    }
    Kokkos::deep_copy(exec, inputs, host_inputs);
    decoder.forward(exec, inputs, DropoutKey{}, activations);
    decoder.logits_by_chunk(exec, activations, [&](long begin, const StoredTensor2& logits) {
      const auto host = rows(host_logits, 0, logits.extent_int(0));
      Kokkos::deep_copy(exec, host, logits);
      exec.fence("dekoder::predictions");
      for (std::size_t m = 0; m < host.extent(0); ++m) {
        const std::size_t row = (std::size_t(begin) + m) / T, t = (std::size_t(begin) + m) % T;
        if (row >= count || t >= windows[pass + row].tokens) continue;
        table.window.push_back(static_cast<std::int32_t>(pass + row));
        table.position.push_back(static_cast<std::int64_t>(windows[pass + row].first + t));
        table.input.push_back(texts[row][t]);
        std::copy_n(&host(m, 0), scores.size(), scores.begin());
        append_prediction(scores, texts[row][t + 1], table);
      }
    });
  }
  return table;
}

}  // namespace dekoder
