// SPDX-License-Identifier: Apache-2.0
#include "train/attention_capture.hpp"

#include <algorithm>
#include <numeric>
#include <set>

#include "base/error.hpp"
#include "kernels/attention_statistics.hpp"

namespace dekoder {

namespace {

AttentionProbe probe_of(const std::string& name, const std::string& source, std::vector<Token> tokens,
                        const Tokenizer& tokenizer) {
  AttentionProbe probe{name, source, "", std::move(tokens), {}};
  for (const Token token : probe.tokens) {
    tokenizer.append_bytes(probe.token_texts.emplace_back(), token);
    probe.text += probe.token_texts.back();
  }
  return probe;
}

/// 0 to n - 1 where none are chosen.
std::vector<int> chosen_or_all(std::vector<int> chosen, int n) {
  if (chosen.empty()) {
    chosen.resize(std::size_t(n));
    std::iota(chosen.begin(), chosen.end(), 0);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace

bool captures_attention(const RunConfig& config, long step) {
  const AttentionConfig& a = config.attention;
  if (a.texts.empty() && a.windows == 0) return false;
  return step == 0 || step == config.training.steps || (a.every > 0 && step % a.every == 0) ||
         std::find(a.steps.begin(), a.steps.end(), step) != a.steps.end();
}

long attention_captures(const RunConfig& config) {
  const AttentionConfig& a = config.attention;
  std::set<long> besides(a.steps.begin(), a.steps.end());
  besides.insert({0, config.training.steps});
  std::erase_if(besides, [&](long step) {
    return !captures_attention(config, step) || (a.every > 0 && step % a.every == 0);
  });
  const bool any = captures_attention(config, 0);
  return long(besides.size()) + (any && a.every > 0 ? config.training.steps / a.every + 1 : 0);
}

AttentionProbe text_probe(const std::string& name, const std::string& source, const std::string& text,
                          const Tokenizer& tokenizer, int context, const std::string& where) {
  if (text.empty()) throw ConfigError("{} is empty; expected at least one character", where);
  std::vector<Token> tokens;
  try {
    tokens = tokenizer.encode(text);
  } catch (const ConfigError& error) {
    throw ConfigError("{}: {}", where, error.what());
  }
  if (tokens.size() > std::size_t(context))
    throw ConfigError("{} has {} tokens; expected at most the model's context, {}: shorten the text", where,
                      tokens.size(), context);
  return probe_of(name, source, std::move(tokens), tokenizer);
}

std::vector<AttentionProbe> attention_probes(const RunConfig& config, const TokenDataset& data) {
  const AttentionConfig& a = config.attention;
  const int context = config.model.context;
  std::vector<AttentionProbe> probes;
  for (std::size_t i = 0; i < a.texts.size(); ++i)
    probes.push_back(text_probe(fmt::format("text_{}", i), "configuration", a.texts[i], data.tokenizer(), context,
                                fmt::format("attention.texts[{}]", i)));

  const std::uint64_t length = std::uint64_t(a.window_tokens == 0 ? context : a.window_tokens);
  if (a.windows > 0 && data.validation_tokens() < length)
    throw ConfigError(
        "attention.windows wants {} tokens of the held-out part, which has {} ({}); shorten "
        "attention.window_tokens, "
        "or leave attention.windows out",
        length, data.validation_tokens(), data.path().string());
  for (int i = 0; i < a.windows; ++i) {
    const std::uint64_t first = std::uint64_t(i) * (data.validation_tokens() - length) / std::uint64_t(a.windows);
    std::vector<Token> tokens(length);
    data.read(data.training_tokens() + first, tokens);
    probes.push_back(probe_of(fmt::format("window_{}", i),
                              fmt::format("held-out tokens {} to {}", first, first + length - 1), std::move(tokens),
                              data.tokenizer()));
  }
  return probes;
}

AttentionFileInfo attention_file_info(const RunConfig& config, const CheckpointInfo& state,
                                      const Tokenizer& tokenizer, std::vector<AttentionProbe> probes) {
  AttentionFileInfo info;
  info.run_id = state.run_id;
  info.config_yaml = state.config_yaml;
  info.writer = state.writer;
  info.tokenizer = tokenizer_kind_name(tokenizer.kind());
  info.layers = chosen_or_all(config.attention.layers, config.model.layers);
  info.heads = chosen_or_all(config.attention.heads, config.model.heads);
  info.probes = std::move(probes);
  for (int s = 0; s < attention_statistic_count; ++s)
    info.statistic_names.emplace_back(attention_statistic_name(static_cast<AttentionStatistic>(s)));
  return info;
}

AttentionMetrics attention_metrics(long step, const AttentionFileInfo& info, std::size_t probe,
                                   const AttentionMaps& maps) {
  AttentionMetrics metrics;
  metrics.step = step;
  metrics.probe = info.probes.at(probe).name;
  metrics.layers = int(info.layers.size());
  metrics.heads = int(info.heads.size());
  metrics.statistics = maps.statistics;
  metrics.names = info.statistic_names;
  return metrics;
}

AttentionCapture::AttentionCapture(const Decoder& decoder, const DecoderActivations& activations,
                                   const AttentionFileInfo& info)
    : decoder_(decoder),
      activations_(activations),
      info_(info),
      tokens_("attention.tokens", activations.sequences(), std::size_t(decoder.model().context)),
      weights_("attention.weights", std::size_t(decoder.model().heads) * tokens_.extent(1) * tokens_.extent(1)),
      statistics_("attention.statistics", std::size_t(decoder.model().heads), attention_statistic_count) {}

std::vector<AttentionMaps> AttentionCapture::capture(const ExecSpace& exec) const {
  std::vector<AttentionMaps> maps;
  const auto host_tokens = Kokkos::create_mirror_view(tokens_);
  while (maps.size() < info_.probes.size()) {
    const std::size_t first = maps.size(), count = std::min(tokens_.extent(0), info_.probes.size() - first);
    Kokkos::deep_copy(host_tokens, 0);  // what follows a probe in its row changes nothing before it
    for (std::size_t row = 0; row < count; ++row) {
      const std::vector<Token>& tokens = info_.probes[first + row].tokens;
      for (std::size_t t = 0; t < tokens.size(); ++t) host_tokens(row, t) = tokens[t];
    }
    Kokkos::deep_copy(exec, tokens_, host_tokens);
    decoder_.forward(exec, tokens_, DropoutKey{}, activations_);
    for (std::size_t row = 0; row < count; ++row)
      maps.push_back(maps_of_row(exec, info_.probes[first + row], int(row)));
  }
  return maps;
}

AttentionMaps AttentionCapture::maps_of_row(const ExecSpace& exec, const AttentionProbe& probe, int row) const {
  const int H = decoder_.model().heads, n = int(probe.tokens.size());
  const Tensor3 weights = reshape<Tensor3>(rows(weights_, 0, H * n * n), H, n, n);
  const ConstTokenTensor1 tokens = Kokkos::subview(tokens_, row, Kokkos::make_pair(0, n));
  const auto host_weights = Kokkos::create_mirror_view(weights);
  const auto host_statistics = Kokkos::create_mirror_view(statistics_);
  AttentionMaps maps;
  for (const int layer : info_.layers) {
    decoder_.blocks[std::size_t(layer)].attention.weights(exec, activations_.blocks[std::size_t(layer)].attention,
                                                          row, weights);
    attention_statistics(exec, weights, tokens, statistics_);
    Kokkos::deep_copy(exec, host_weights, weights);
    Kokkos::deep_copy(exec, host_statistics, statistics_);
    exec.fence("dekoder::attention_capture");
    for (const int head : info_.heads) {
      const Real* map = &host_weights(head, 0, 0);
      maps.weights.insert(maps.weights.end(), map, map + n * n);
      const Real* row_of_head = &host_statistics(head, 0);
      maps.statistics.insert(maps.statistics.end(), row_of_head, row_of_head + attention_statistic_count);
    }
  }
  return maps;
}

}  // namespace dekoder
