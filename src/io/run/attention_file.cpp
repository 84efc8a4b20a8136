// SPDX-License-Identifier: Apache-2.0
#include "io/run/attention_file.hpp"

#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/log.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/fault_point.hpp"
#include "io/hdf5/half.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "io/run/attention_reader.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;
using Extents = std::vector<std::size_t>;

constexpr const char* map_axes = "layer,head,query,key";
constexpr const char* statistic_axes = "layer,head,statistic";

Extents map_shape(const AttentionFileInfo& info, const AttentionProbe& probe) {
  return {info.layers.size(), info.heads.size(), probe.tokens.size(), probe.tokens.size()};
}
Extents statistics_shape(const AttentionFileInfo& info) {
  return {info.layers.size(), info.heads.size(), info.statistic_names.size()};
}

std::string statistic_names(const AttentionFileInfo& info) {
  return fmt::format("{}", fmt::join(info.statistic_names, ","));
}

/// Bytes as text that every reader of UTF-8 takes: a byte that is none, and a NUL, as \xC3.
std::string readable(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    utf8proc_int32_t code_point = 0;
    const auto* front = reinterpret_cast<const utf8proc_uint8_t*>(bytes.data());
    const utf8proc_ssize_t taken = utf8proc_iterate(front, std::ssize(bytes), &code_point);
    const std::size_t length = taken > 0 ? static_cast<std::size_t>(taken) : 1;
    if (taken <= 0 || code_point == 0)
      text += fmt::format("\\x{:02X}", *front);
    else
      text += bytes.substr(0, length);
    bytes.remove_prefix(length);
  }
  return text;
}

/// Checks the info and makes its texts readable.
AttentionFileInfo prepared(AttentionFileInfo info) {
  if (info.layers.empty() || info.heads.empty() || info.probes.empty() || info.statistic_names.empty())
    throw ShapeError("attention file: no layers, heads, probes or statistics");
  for (AttentionProbe& probe : info.probes) {
    if (probe.tokens.empty() || probe.token_texts.size() != probe.tokens.size())
      throw ShapeError(fmt::format("attention file: probe {} has {} tokens and {} texts of them", probe.name,
                                   probe.tokens.size(), probe.token_texts.size()));
    probe.text = readable(probe.text);
    for (std::string& text : probe.token_texts) text = readable(text);
  }
  return info;
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

/// Why a file cannot be gone on with under `info`: "another run"; nothing where it can.
std::string difference(const AttentionFileInfo& found, const AttentionFileInfo& info) {
  if (found.run_id != info.run_id) return "another run";
  if (found.tokenizer != info.tokenizer) return "another tokenizer";
  if (found.layers != info.layers) return "other layers";
  if (found.heads != info.heads) return "other heads";
  if (found.statistic_names != info.statistic_names) return "other statistics";
  if (found.probes.size() != info.probes.size()) return "other texts";
  for (const AttentionProbe& probe : info.probes)
    if (std::find(found.probes.begin(), found.probes.end(), probe) == found.probes.end())
      return fmt::format("another text {}", probe.name);
  return "";
}

void write_info(Hdf5File& file, const AttentionFileInfo& info) {
  file.write_attribute("/", "format", attention_file::format);
  file.write_attribute("/", "major", attention_file::major_version);
  file.write_attribute("/", "minor", attention_file::minor_version);
  file.write_attribute("/", "run_id", info.run_id);
  file.write_attribute("/", "config", info.config_yaml);
  file.write_attribute("/", "tokenizer", info.tokenizer);
  file.write_attribute("/", "writer", info.writer);
  file.write<std::int32_t>("/layers", info.layers);
  file.write<std::int32_t>("/heads", info.heads);
  file.create_group("/statistics");
  file.write_attribute("/statistics", "names", statistic_names(info));
  for (const AttentionProbe& probe : info.probes) {
    const std::string path = "/attention/" + probe.name;
    file.create_group(path);
    file.create_group("/statistics/" + probe.name);
    file.write_attribute(path, "text", probe.text);
    file.write_attribute(path, "source", probe.source);
    file.write_attribute(path, "causal", std::uint8_t{1});
    file.write<Token>(path + "/tokens", probe.tokens);
    file.write_texts(path + "/token_text", probe.token_texts);
  }
}

void write_step(Hdf5File& file, const AttentionFileInfo& info, long step, std::span<const AttentionMaps> maps) {
  std::vector<Half> weights;
  for (std::size_t p = 0; p < maps.size(); ++p) {
    const AttentionProbe& probe = info.probes[p];
    const std::size_t tokens = probe.tokens.size();
    weights.resize(maps[p].weights.size());
    std::transform(maps[p].weights.begin(), maps[p].weights.end(), weights.begin(), to_half);
    const std::string map = attention_file::map_path(probe.name, step),
                      statistics = attention_file::statistics_path(probe.name, step);
    file.write<Half>(map, weights, map_shape(info, probe),
                     Hdf5Storage{.chunk = {1, 1, tokens, tokens}, .shuffle = true, .gzip = 4});
    file.write_attribute(map, "axes", map_axes);
    file.write_attribute(map, "step", std::int64_t{step});
    if (p == 0) fault_point("attention:mid_write");
    file.write<float>(statistics, maps[p].statistics, statistics_shape(info));
    file.write_attribute(statistics, "axes", statistic_axes);
    file.write_attribute(statistics, "step", std::int64_t{step});
  }
}

/// A file that `info` can be gone on with. Throws DataError that says why it is none.
AttentionReader open_own(const fs::path& path, const AttentionFileInfo& info) {
  AttentionReader reader(path);
  if (const std::string other = difference(reader.info(), info); !other.empty())
    throw DataError("{}: is of {}", path.string(), other);
  return reader;
}

/// Device, inode, bytes and time of the last change: another one means another file or contents. Zeros: no file.
std::array<std::int64_t, 5> identity_of(const fs::path& path) {
  struct stat found = {};
  if (::stat(path.c_str(), &found) != 0) return {};
  return {std::int64_t(found.st_dev), std::int64_t(found.st_ino), found.st_size, found.st_mtim.tv_sec,
          found.st_mtim.tv_nsec};
}

std::set<long> steps_up_to(const AttentionReader& reader, long last) {
  std::set<long> steps(reader.steps().begin(), reader.steps().end());
  steps.erase(steps.upper_bound(last), steps.end());
  return steps;
}

/// The whole way of a new file: `fill(file)` writes into `begin(temporary)`, at most `bytes` of them; then the file
/// takes its name. What fails is a SaveError that begins with `loss`.
template <class Begin, class Fill>
void replace_file(const fs::path& path, const fs::path& temporary_path, std::uint64_t bytes, std::string_view loss,
                  Begin begin, Fill fill) {
  const auto fail = [&](const std::exception& error) {
    std::error_code ignored;
    const bool there = fs::exists(fs::symlink_status(path, ignored));
    throw SaveError("{}{}: {}", loss, there ? fmt::format("; {} is as it was", path.string()) : "", error.what());
  };
  try {
    TemporaryFile temporary(temporary_path);
    require_space(path.parent_path(), bytes);
    Hdf5File file = begin(temporary.path());
    reserve_space(temporary.path(), bytes);
    fill(file);
    file.close();
    release_space(temporary.path());
    fault_point("attention:before_rename");
    publish_file(temporary.path(), path);
    temporary.keep();
    fault_point("attention:after_rename");
  } catch (const DataError& error) {
    fail(error);
  } catch (const fs::filesystem_error& error) {
    fail(error);
  }
}

void move_aside(const fs::path& path, const std::string& reason) {
  for (int number = 1;; ++number) {
    const fs::path aside =
        path.parent_path() / fmt::format("{}-{}{}", path.stem().string(), number, path.extension().string());
    std::error_code failure;
    if (fs::exists(fs::symlink_status(aside, failure))) continue;
    fs::rename(path, aside, failure);
    if (failure)
      throw SaveError("{}: cannot be moved to {}: {}; it is in the way: {}", path.string(), aside.string(),
                      failure.message(), reason);
    log_warning("{}; moved to {}, a new file is begun", reason, aside.string());
    return;
  }
}

}  // namespace

std::string attention_file::map_path(const std::string& probe, long step) {
  return fmt::format("/attention/{}/step_{}", probe, step);
}

std::string attention_file::statistics_path(const std::string& probe, long step) {
  return fmt::format("/statistics/{}/step_{}", probe, step);
}

AttentionFile::AttentionFile(std::filesystem::path path, AttentionFileInfo info, long kept_step)
    : path_(link_target(std::move(path))),
      temporary_(path_.parent_path() / fmt::format(".{}.tmp", path_.filename().string())),
      info_(prepared(std::move(info))) {
  std::error_code ignored;
  if (fs::remove(temporary_, ignored))
    log_info("removed {}, left by a writer that did not finish", temporary_.string());
  if (take_over(kept_step, true)) {
    replace_file(path_, temporary_, fs::file_size(path_, ignored) + attention_bytes(info_, 0),
                 "steps that will be repeated cannot be dropped", Hdf5File::create,
                 [&](Hdf5File& file) { write_kept(file); });
    current_ = true;
  }
  identity_ = identity_of(path_);
}

/// Takes the steps up to `kept_step` for this file's; moves aside what cannot be gone on with. Returns whether the
/// file has later steps, too.
bool AttentionFile::take_over(long kept_step, bool read_maps) {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(path_, ignored))) {
    if (!steps_.empty()) log_warning("{}: is gone; a new file is begun", path_.string());
    steps_.clear();
    return false;
  }
  try {
    const AttentionReader reader = open_own(path_, info_);
    steps_ = steps_up_to(reader, kept_step);
    for (const long step : steps_)
      for (std::size_t p = 0; read_maps && p < info_.probes.size(); ++p)
        reader.read(p, step);  // throws where damaged
    current_ = reader.info().config_yaml == info_.config_yaml && reader.info().writer == info_.writer;
    return steps_.size() < reader.steps().size();
  } catch (const DataError& error) {
    steps_.clear();
    move_aside(path_, error.what());
    return false;
  }
}

/// The info, and the steps that stay of the file at path_.
void AttentionFile::write_kept(Hdf5File& file) const {
  write_info(file, info_);
  if (steps_.empty()) return;
  const Hdf5File source = Hdf5File::open(path_);
  for (const long step : steps_)
    for (const AttentionProbe& probe : info_.probes) {
      file.copy(source, attention_file::map_path(probe.name, step));
      file.copy(source, attention_file::statistics_path(probe.name, step));
    }
}

void AttentionFile::append(long step, std::span<const AttentionMaps> one_per_probe) {
  if (step < 0 || has(step)) throw std::logic_error(fmt::format("attention file: step {} once more", step));
  check_sizes(info_, one_per_probe);
  if (identity_of(path_) != identity_) take_over(std::numeric_limits<long>::max(), false);
  if (has(step)) return;  // put there from outside, by this run's writer
  const bool anew = steps_.empty() || !current_;
  std::error_code absent;
  const std::uintmax_t old_bytes = fs::file_size(path_, absent);
  const auto begin = [&](const fs::path& temporary) {
    if (anew) return Hdf5File::create(temporary);
    fs::copy_file(path_, temporary);
    return Hdf5File::edit(temporary);
  };
  replace_file(path_, temporary_, (absent ? 0 : old_bytes) + attention_bytes(info_, 1),
               fmt::format("attention maps of step {} are not saved", step), begin, [&](Hdf5File& file) {
                 if (anew) write_kept(file);
                 write_step(file, info_, step, one_per_probe);
               });
  steps_.insert(step);
  current_ = true;
  identity_ = identity_of(path_);
}

std::set<long> kept_attention_steps(const std::filesystem::path& path, AttentionFileInfo info, long kept_step) {
  try {
    return steps_up_to(open_own(path, prepared(std::move(info))), kept_step);
  } catch (const DataError&) {
    return {};  // nothing there, or what is moved aside
  }
}

void write_attention_file(const std::filesystem::path& path, AttentionFileInfo info, long step,
                          std::span<const AttentionMaps> one_per_probe) {
  info = prepared(std::move(info));
  check_sizes(info, one_per_probe);
  const fs::path temporary = path.parent_path() / fmt::format(".{}.{}.tmp", path.filename().string(), ::getpid());
  replace_file(path, temporary, attention_bytes(info, 1),
               fmt::format("attention maps of step {} are not saved", step), Hdf5File::create, [&](Hdf5File& file) {
                 write_info(file, info);
                 write_step(file, info, step, one_per_probe);
               });
}

std::uint64_t attention_step_bytes(std::uint64_t maps, std::uint64_t tokens, std::uint64_t statistics) {
  constexpr std::uint64_t step_overhead = 4 << 10;
  const std::uint64_t map_bytes = sizeof(Half) * tokens * tokens;
  return step_overhead + maps * (map_bytes + map_bytes / 1024 + 64 + sizeof(float) * statistics);
}

std::uint64_t attention_bytes(const AttentionFileInfo& info, long steps) {
  constexpr std::uint64_t file_overhead = 32 << 10, probe_overhead = 8 << 10;
  const std::uint64_t maps = info.layers.size() * info.heads.size();
  std::uint64_t bytes = file_overhead + info.config_yaml.size() + 4 * (info.layers.size() + info.heads.size());
  for (const AttentionProbe& probe : info.probes) {
    const std::uint64_t tokens = probe.tokens.size();
    std::uint64_t longest = 0;
    for (const std::string& text : probe.token_texts) longest = std::max(longest, 4 * std::uint64_t{text.size()});
    bytes += probe_overhead + 4 * probe.text.size() + probe.source.size() + tokens * (sizeof(Token) + longest);
    bytes += static_cast<std::uint64_t>(steps) * attention_step_bytes(maps, tokens, info.statistic_names.size());
  }
  return bytes;
}

}  // namespace dekoder
