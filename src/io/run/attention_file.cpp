// SPDX-License-Identifier: Apache-2.0
#include "io/run/attention_file.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <system_error>
#include <utility>

#include "base/utf8.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/fault_point.hpp"
#include "io/hdf5/half.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "io/run/attention_reader.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;
using Extents = std::vector<std::size_t>;

Extents map_shape(const AttentionFileInfo& info, const AttentionProbe& probe) {
  return {info.layers.size(), info.heads.size(), probe.tokens.size(), probe.tokens.size()};
}
Extents statistics_shape(const AttentionFileInfo& info) {
  return {info.layers.size(), info.heads.size(), info.statistic_names.size()};
}

void check_sizes(const AttentionFileInfo& info, std::span<const AttentionMaps> one_per_probe) {
  if (one_per_probe.size() != info.probes.size())
    throw ShapeError(
        fmt::format("attention file: maps of {} probes, expected {}", one_per_probe.size(), info.probes.size()));
  const std::size_t heads = info.layers.size() * info.heads.size();
  for (std::size_t p = 0; p < one_per_probe.size(); ++p) {
    const std::size_t tokens = info.probes[p].tokens.size();
    if (one_per_probe[p].weights.size() != heads * tokens * tokens ||
        one_per_probe[p].statistics.size() != heads * info.statistic_names.size())
      throw ShapeError(fmt::format("attention file: {} weights and {} statistics of {}, expected ({}) and ({})",
                                   one_per_probe[p].weights.size(), one_per_probe[p].statistics.size(),
                                   info.probes[p].name, fmt::join(map_shape(info, info.probes[p]), ","),
                                   fmt::join(statistics_shape(info), ",")));
  }
}

void write_info(Hdf5File& file, const AttentionFileInfo& info, long step) {
  file.write_attribute("/", "format", attention_file::format);
  file.write_attribute("/", "major", attention_file::major_version);
  file.write_attribute("/", "minor", attention_file::minor_version);
  file.write_attribute("/", "step", std::int64_t{step});
  file.write_attribute("/", "run_id", info.run_id);
  file.write_attribute("/", "config", info.config_yaml);
  file.write_attribute("/", "tokenizer", info.tokenizer);
  file.write_attribute("/", "writer", info.writer);
  file.write_attribute("/", "statistic_names", fmt::format("{}", fmt::join(info.statistic_names, ",")));
  file.write<std::int32_t>("/layers", info.layers);
  file.write<std::int32_t>("/heads", info.heads);
}

void write_probe(Hdf5File& file, const AttentionFileInfo& info, const AttentionProbe& probe,
                 const AttentionMaps& maps) {
  const std::string group = "/attention/" + probe.name, map = attention_file::map_path(probe.name),
                    statistics = attention_file::statistics_path(probe.name);
  file.create_group(group);
  file.write_attribute(group, "text", probe.text);
  file.write_attribute(group, "source", probe.source);
  file.write_attribute(group, "causal", std::uint8_t{1});
  file.write<Token>(group + "/tokens", probe.tokens);
  file.write_texts(group + "/token_text", probe.token_texts);
  std::vector<Half> weights(maps.weights.size());
  std::transform(maps.weights.begin(), maps.weights.end(), weights.begin(), to_half);
  file.write<Half>(
      map, weights, map_shape(info, probe),
      Hdf5Storage{.chunk = {1, 1, probe.tokens.size(), probe.tokens.size()}, .shuffle = true, .gzip = 4});
  file.write_attribute(map, "axes", "layer,head,query,key");
  file.write<float>(statistics, maps.statistics, statistics_shape(info));
  file.write_attribute(statistics, "axes", "layer,head,statistic");
}

}  // namespace

std::string attention_file::map_path(const std::string& probe) {
  return fmt::format("/attention/{}/weights", probe);
}

std::string attention_file::statistics_path(const std::string& probe) {
  return fmt::format("/attention/{}/statistics", probe);
}

AttentionFileInfo as_written(AttentionFileInfo info) {
  if (info.layers.empty() || info.heads.empty() || info.probes.empty() || info.statistic_names.empty())
    throw ShapeError("attention file: no layers, heads, probes or statistics");
  for (AttentionProbe& probe : info.probes) {
    if (probe.tokens.empty() || probe.token_texts.size() != probe.tokens.size())
      throw ShapeError(fmt::format("attention file: probe {} has {} tokens and {} texts of them", probe.name,
                                   probe.tokens.size(), probe.token_texts.size()));
    probe.text = as_readable_utf8(probe.text);
    for (std::string& text : probe.token_texts) text = as_readable_utf8(text);
  }
  return info;
}

void write_attention_file(const std::filesystem::path& path, AttentionFileInfo info, long step,
                          std::span<const AttentionMaps> one_per_probe) {
  info = as_written(std::move(info));
  check_sizes(info, one_per_probe);
  const auto fail = [&](const std::exception& error) {
    std::error_code ignored;
    const bool there = fs::exists(fs::symlink_status(path, ignored));
    throw SaveError("attention maps of step {} are not saved{}: {}", step,
                    there ? fmt::format("; {} is as it was", path.string()) : "", error.what());
  };
  try {
    PendingFile pending(path, "attention", attention_bytes(info));
    Hdf5File file = Hdf5File::create(pending);
    pending.reserve();
    write_info(file, info, step);
    for (std::size_t p = 0; p < info.probes.size(); ++p) {
      write_probe(file, info, info.probes[p], one_per_probe[p]);
      if (p == 0) fault_point("attention:mid_write");
    }
    file.close();
    pending.commit([](const fs::path& written) { AttentionReader(written).verify(); });
  } catch (const DataError& error) {
    fail(error);
  } catch (const fs::filesystem_error& error) {
    fail(error);
  }
}

std::uint64_t attention_probe_bytes(std::uint64_t maps, std::uint64_t tokens, std::uint64_t statistics) {
  constexpr std::uint64_t probe_overhead = 6 << 10;
  const std::uint64_t map_bytes = sizeof(Half) * tokens * tokens;
  return probe_overhead + tokens * sizeof(Token) +
         maps * (map_bytes + map_bytes / 1024 + 64 + sizeof(float) * statistics);
}

std::uint64_t attention_bytes(const AttentionFileInfo& info) {
  constexpr std::uint64_t file_overhead = 12 << 10;
  const std::uint64_t maps = info.layers.size() * info.heads.size();
  std::uint64_t bytes = file_overhead + info.config_yaml.size() + 4 * (info.layers.size() + info.heads.size());
  for (const AttentionProbe& probe : info.probes) {
    const std::uint64_t tokens = probe.tokens.size();
    std::uint64_t longest = 0;
    for (const std::string& text : probe.token_texts) longest = std::max(longest, 4 * std::uint64_t{text.size()});
    bytes += 4 * probe.text.size() + probe.source.size() + tokens * longest +
             attention_probe_bytes(maps, tokens, info.statistic_names.size());
  }
  return bytes;
}

}  // namespace dekoder
