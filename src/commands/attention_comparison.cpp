// SPDX-License-Identifier: Apache-2.0
#include "commands/attention_comparison.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace dekoder {

namespace {

/// What two files have in common; indices into the lists of each.
struct Match {
  std::size_t first, other;
};

template <class T>
std::vector<Match> matches(const std::vector<T>& first, const std::vector<T>& other) {
  std::vector<Match> result;
  for (std::size_t i = 0; i < first.size(); ++i)
    for (std::size_t j = 0; j < other.size(); ++j)
      if (first[i] == other[j]) {
        result.push_back({i, j});
        break;
      }
  return result;
}

std::vector<Match> same_probes(const AttentionFileInfo& first, const AttentionFileInfo& other) {
  const auto contents = [](const AttentionFileInfo& info) {
    std::vector<std::pair<std::vector<Token>, std::vector<std::string>>> all;
    for (const AttentionProbe& probe : info.probes) all.emplace_back(probe.tokens, probe.token_texts);
    return all;
  };
  return matches(contents(first), contents(other));
}

std::vector<long> steps_of(const AttentionReader& file) {
  return {file.step()};
}

std::optional<long> last_common_step(const std::vector<long>& first, const std::vector<long>& other) {
  const std::vector<Match> common = matches(first, other);
  if (common.empty()) return std::nullopt;
  return first[common.back().first];
}

/// Weights of one head in maps (layer, head, query, key).
std::span<const float> head_map(const AttentionMaps& maps, const AttentionFileInfo& info, std::size_t layer,
                                std::size_t head, std::size_t tokens) {
  return std::span(maps.weights).subspan((layer * info.heads.size() + head) * tokens * tokens, tokens * tokens);
}

/// Distance of the maps of two files, each at its own step; nothing where they have no probe or head in common.
std::optional<MapDistance> map_distance(const AttentionReader& first, long first_step, const AttentionReader& other,
                                        long other_step) {
  const AttentionFileInfo &a = first.info(), &b = other.info();
  const std::vector<Match> probes = same_probes(a, b), layers = matches(a.layers, b.layers),
                           heads = matches(a.heads, b.heads);
  if (probes.empty() || layers.empty() || heads.empty()) return std::nullopt;
  MapDistance result;
  result.first_step = first_step;
  result.last_step = other_step;
  for (const Match& layer : layers) result.distance.layers.push_back(a.layers[layer.first]);
  for (const Match& head : heads) result.distance.heads.push_back(a.heads[head.first]);
  std::vector<double>& sums = result.distance.values;
  sums.resize(layers.size() * heads.size());
  std::size_t queries = 0;
  for (const Match& probe : probes) {
    const std::size_t n = a.probes[probe.first].tokens.size();
    result.probes.push_back(a.probes[probe.first].name);
    queries += n;
    const AttentionMaps first_maps = first.read(probe.first), other_maps = other.read(probe.other);
    std::size_t i = 0;
    for (const Match& layer : layers)
      for (const Match& head : heads)
        sums[i++] += double(n) * total_variation(head_map(first_maps, a, layer.first, head.first, n),
                                                 head_map(other_maps, b, layer.other, head.other, n), int(n));
  }
  for (double& sum : sums) sum /= double(queries);
  return result;
}

/// What all files have in common, as indices into each: (run)(common thing).
struct Common {
  std::vector<std::vector<std::size_t>> probes, layers, heads;
  std::vector<long> steps;
};

/// Keeps of the things found so far those that one more file has, too.
void keep_common(std::vector<std::vector<std::size_t>>& all, const std::vector<Match>& with_first) {
  std::vector<std::vector<std::size_t>> kept(all.size() + 1);
  for (std::size_t i = 0; i < all[0].size(); ++i) {
    const auto same = [&](const Match& match) { return match.first == all[0][i]; };
    const auto found = std::find_if(with_first.begin(), with_first.end(), same);
    if (found == with_first.end()) continue;
    for (std::size_t r = 0; r < all.size(); ++r) kept[r].push_back(all[r][i]);
    kept.back().push_back(found->other);
  }
  all = std::move(kept);
}

Common common_to_all(std::span<const AttentionReader* const> files) {
  const AttentionFileInfo& first = files[0]->info();
  Common common;
  const auto all_of = [](std::size_t n) {
    std::vector<std::size_t> indices(n);
    for (std::size_t i = 0; i < n; ++i) indices[i] = i;
    return std::vector<std::vector<std::size_t>>(1, indices);
  };
  common.probes = all_of(first.probes.size());
  common.layers = all_of(first.layers.size());
  common.heads = all_of(first.heads.size());
  common.steps = steps_of(*files[0]);
  for (const AttentionReader* file : files.subspan(1)) {
    const AttentionFileInfo& info = file->info();
    keep_common(common.probes, same_probes(first, info));
    keep_common(common.layers, matches(first.layers, info.layers));
    keep_common(common.heads, matches(first.heads, info.heads));
    std::erase_if(common.steps, [&](long step) { return step != file->step(); });
  }
  return common;
}

/// Statistics (layer, head, statistic) of one file at one step for the common heads, means over the common probes.
std::vector<double> mean_statistics(const AttentionReader& file, const Common& common, std::size_t run) {
  const std::size_t S = file.info().statistic_names.size(), H = file.info().heads.size();
  std::vector<double> means(common.layers[run].size() * common.heads[run].size() * S);
  for (const std::size_t probe : common.probes[run]) {
    const AttentionMaps maps = file.read(probe);
    std::size_t i = 0;
    for (const std::size_t layer : common.layers[run])
      for (const std::size_t head : common.heads[run])
        for (std::size_t s = 0; s < S; ++s)
          means[i++] += double(maps.statistics[(layer * H + head) * S + s]) / double(common.probes[run].size());
  }
  return means;
}

std::optional<StatisticsComparison> compare_statistics(std::span<const AttentionReader* const> runs) {
  std::vector<const AttentionReader*> files;
  for (const AttentionReader* run : runs)
    if (run != nullptr) files.push_back(run);
  if (files.empty()) return std::nullopt;
  const Common common = common_to_all(files);
  if (common.steps.empty() || common.probes[0].empty() || common.layers[0].empty() || common.heads[0].empty())
    return std::nullopt;
  for (const AttentionReader* file : files)
    if (file->info().statistic_names != files[0]->info().statistic_names) return std::nullopt;
  const AttentionFileInfo& first = files[0]->info();
  StatisticsComparison result;
  result.step = common.steps.back();
  result.names = files[0]->info().statistic_names;
  for (const std::size_t probe : common.probes[0]) result.probes.push_back(first.probes[probe].name);
  for (const std::size_t layer : common.layers[0]) result.layers.push_back(first.layers[layer]);
  for (const std::size_t head : common.heads[0]) result.heads.push_back(first.heads[head]);
  std::size_t file = 0;
  for (const AttentionReader* run : runs) {
    result.values.emplace_back();
    if (run == nullptr) continue;
    result.values.back() = mean_statistics(*run, common, file);
    ++file;
  }
  return result;
}

}  // namespace

double total_variation(std::span<const float> w, std::span<const float> v, int queries) {
  const std::size_t n = std::size_t(queries);
  if (w.size() != n * n || v.size() != n * n)
    throw ShapeError(fmt::format("total_variation: maps of {} and {} weights, expected {} x {}", w.size(), v.size(),
                                 queries, queries));
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i) sum += std::abs(double(w[i]) - double(v[i]));
  return 0.5 * sum / double(queries);
}

AttentionComparison compare_attention(std::span<const AttentionReader* const> runs) {
  AttentionComparison result;
  for (const AttentionReader* run : runs) {
    const bool any = run != nullptr;
    result.has_maps.push_back(any);
    result.changes.push_back(any ? map_distance(*run, run->step(), *run, run->step()) : std::nullopt);
    result.differences.emplace_back();
    if (!any || run == runs[0] || runs[0] == nullptr) continue;
    if (const std::optional<long> step = last_common_step(steps_of(*runs[0]), steps_of(*run)))
      result.differences.back() = map_distance(*runs[0], *step, *run, *step);
  }
  result.statistics = compare_statistics(runs);
  return result;
}

}  // namespace dekoder
