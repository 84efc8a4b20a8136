// SPDX-License-Identifier: Apache-2.0
#include "inference/attention_capture.hpp"

#include <algorithm>
#include <numeric>

#include "base/error.hpp"
#include "kernels/attention/statistics.hpp"

namespace dekoder {

namespace {

AttentionProbe probe_of(const std::string& name, const std::string& source, std::vector<Token> tokens,
                        const Tokenizer& tokenizer) {
  AttentionProbe probe{name, source, "", std::move(tokens), {}};
  for (const Token token : probe.tokens) {
    probe.token_texts.push_back(tokenizer.listed(token));
    tokenizer.append_bytes(probe.text, token);
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

/// How many are chosen.
std::size_t count_chosen(const std::vector<int>& chosen, int n) {
  return chosen.empty() ? std::size_t(n) : chosen.size();
}

std::size_t longest_probe(const AttentionFileInfo& info) {
  std::size_t longest = 0;
  for (const AttentionProbe& probe : info.probes) longest = std::max(longest, probe.tokens.size());
  return longest;
}

int window_tokens(const RunConfig& config) {
  return config.attention.window_tokens == 0 ? config.model.context : config.attention.window_tokens;
}

void check_size(const RunConfig& config, double steps, double bytes) {
  const AttentionConfig& a = config.attention;
  if (bytes <= 1e6 * a.max_megabytes) return;
  throw ConfigError(
      "attention maps of {:.0f} steps, {} probes, {} layers and {} heads could take {:.0f} MB, more than "
      "attention.max_megabytes {}; raise it, or lengthen attention.every, choose attention.layers or "
      "attention.heads, or shorten the probes (attention.texts, attention.windows, attention.window_tokens)",
      steps, a.texts.size() + std::size_t(a.windows), count_chosen(a.layers, config.model.layers),
      count_chosen(a.heads, config.model.heads), bytes / 1e6, a.max_megabytes);
}

/// What the numbers of the configuration alone come to, before probes and steps are listed, which they may be too
/// many for: at least this much.
void check_numbers(const RunConfig& config, long from) {
  const AttentionConfig& a = config.attention;
  const std::size_t maps = count_chosen(a.layers, config.model.layers) * count_chosen(a.heads, config.model.heads);
  const auto step_bytes = [&](int tokens) {
    return double(attention_probe_bytes(maps, std::uint64_t(tokens), attention_statistic_count));
  };
  const double steps = a.every > 0 ? std::max(1.0, double(config.training.steps - from) / double(a.every)) : 1.0;
  check_size(
      config, steps,
      steps * (double(a.texts.size()) * step_bytes(1) + double(a.windows) * step_bytes(window_tokens(config))));
}

}  // namespace

bool captures_attention(const RunConfig& config, long step) {
  const AttentionConfig& a = config.attention;
  if (a.texts.empty() && a.windows == 0) return false;
  return step == 0 || step == config.training.steps || (a.every > 0 && step % a.every == 0) ||
         std::find(a.steps.begin(), a.steps.end(), step) != a.steps.end();
}

std::set<long> attention_steps(const RunConfig& config, long from) {
  if (!captures_attention(config, 0)) return {};
  const AttentionConfig& a = config.attention;
  const long last = config.training.steps;
  std::set<long> steps(a.steps.begin(), a.steps.end());
  steps.insert({0, last});
  if (a.every > 0)
    for (long i = from / a.every; i <= last / a.every; ++i) steps.insert(i * a.every);
  std::erase_if(steps, [&](long step) { return step < from || !captures_attention(config, step); });
  return steps;
}

AttentionProbe text_probe(const std::string& name, const std::string& source, const std::string& text,
                          const Tokenizer& tokenizer, int context, const std::string& where) {
  if (text.empty()) throw ConfigError("{} is empty; expected at least one character", where);
  std::vector<Token> tokens = tokenizer.encode(text, where);
  if (tokens.size() > std::size_t(context))
    throw ConfigError("{} has {} tokens; expected at most the model's context, {}: shorten the text", where,
                      tokens.size(), context);
  return probe_of(name, source, std::move(tokens), tokenizer);
}

std::vector<AttentionProbe> attention_probes(const RunConfig& config, const DataMixture& data) {
  const AttentionConfig& a = config.attention;
  const int context = config.model.context;
  std::vector<AttentionProbe> probes;
  for (std::size_t i = 0; i < a.texts.size(); ++i)
    probes.push_back(text_probe(fmt::format("text_{}", i), "configuration", a.texts[i], data.tokenizer(), context,
                                fmt::format("attention.texts[{}]", i)));

  const std::uint64_t length = std::uint64_t(window_tokens(config)), windows = std::uint64_t(a.windows);
  std::vector<const TokenDataset*> with_held_out;
  for (const TokenDataset& source : data.sources())
    if (data.single() || source.validation_tokens() > 0) with_held_out.push_back(&source);
  const std::uint64_t sources = with_held_out.size();
  for (std::uint64_t i = 0; i < windows; ++i) {
    if (sources == 0)
      throw ConfigError("attention.windows: no file of data.tokens has a held-out part; leave it out");
    const TokenDataset& source = *with_held_out[i % sources];
    const std::uint64_t held_out = source.validation_tokens();
    if (held_out < length)
      throw ConfigError(
          "attention.windows wants {} tokens of the held-out part, which has {} ({}); shorten "
          "attention.window_tokens, or leave attention.windows out",
          length, held_out, source.path().string());
    const std::uint64_t of_source = (windows - i % sources + sources - 1) / sources;
    const std::uint64_t first = i / sources * (held_out - length) / of_source;
    std::vector<Token> tokens(length);
    source.read(source.training_tokens() + first, tokens);
    probes.push_back(probe_of(fmt::format("window_{}", i),
                              fmt::format("held-out tokens {} to {}{}", first, first + length - 1,
                                          data.single() ? "" : " of " + source.path().string()),
                              std::move(tokens), data.tokenizer()));
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

AttentionPlan plan_attention(const RunConfig& config, const CheckpointInfo& state, const DataMixture& data,
                             const std::filesystem::path& folder, long resumed_step) {
  const long from = std::max(resumed_step, 0L);
  check_numbers(config, from);
  AttentionPlan plan;
  plan.info = attention_file_info(config, state, data.tokenizer(), attention_probes(config, data));
  const KeptAttention kept = kept_attention(folder, plan.info, resumed_step);
  plan.steps = attention_steps(config, from);
  plan.steps.insert(kept.steps.begin(), kept.steps.end());
  plan.to_come = long(plan.steps.size() - kept.steps.size());
  plan.bytes = kept.bytes + std::uint64_t(plan.to_come) * attention_bytes(plan.info);
  check_size(config, double(plan.steps.size()), double(plan.bytes));
  return plan;
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

std::size_t attention_capture_bytes(std::size_t sequences, std::size_t context, std::size_t longest) {
  return sizeof(Token) * sequences * context + sizeof(Master) * (longest * longest + attention_statistic_count) +
         sizeof(Accumulator) * longest * (attention_statistic_count + 1);
}

AttentionCapture::AttentionCapture(const Decoder& decoder, const DecoderActivations& activations,
                                   const AttentionFileInfo& info)
    : decoder_(decoder),
      activations_(activations),
      info_(info),
      tokens_("attention.tokens", activations.sequences(), std::size_t(decoder.model().context)),
      weights_("attention.weights", longest_probe(info) * longest_probe(info)),
      sums_("attention.sums", longest_probe(info) * (attention_statistic_count + 1)),
      statistics_("attention.statistics", 1, attention_statistic_count) {}

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
    maps.resize(first + count);
    for (const int layer : info_.layers) {
      decoder_.restore_block(exec, std::size_t(layer), DropoutKey{}, activations_);
      for (std::size_t row = 0; row < count; ++row)
        append_maps(exec, info_.probes[first + row], int(row), layer, maps[first + row]);
    }
  }
  return maps;
}

void AttentionCapture::append_maps(const ExecSpace& exec, const AttentionProbe& probe, int row, int layer,
                                   AttentionMaps& maps) const {
  const std::size_t n = probe.tokens.size(), heads = info_.layers.size() * info_.heads.size();
  constexpr std::size_t columns = attention_statistic_count + 1;
  const auto weights = reshape<MasterTensor3>(rows(weights_, 0, long(n * n)), 1, n, n);
  const auto sums = reshape<AccumulatorTensor3>(rows(sums_, 0, long(n * columns)), 1, n, columns);
  const ConstTokenTensor1 tokens = Kokkos::subview(tokens_, row, Kokkos::make_pair(std::size_t(0), n));
  const auto host_weights = Kokkos::create_mirror_view(weights);
  const auto host_statistics = Kokkos::create_mirror_view(statistics_);
  maps.weights.reserve(heads * n * n);
  for (const int head : info_.heads) {
    decoder_.blocks[std::size_t(layer)].attention.weights(exec, activations_.blocks[std::size_t(layer)].attention,
                                                          activations_.scratch.attention, row, head, weights);
    attention_statistics(exec, weights, tokens, sums, statistics_);
    Kokkos::deep_copy(exec, host_weights, weights);
    Kokkos::deep_copy(exec, host_statistics, statistics_);
    exec.fence("dekoder::attention_capture");
    maps.weights.insert(maps.weights.end(), host_weights.data(), host_weights.data() + n * n);
    maps.statistics.insert(maps.statistics.end(), host_statistics.data(),
                           host_statistics.data() + attention_statistic_count);
  }
}

}  // namespace dekoder
