// SPDX-License-Identifier: Apache-2.0
#include "io/run/attention_folder.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "base/error.hpp"
#include "base/log.hpp"
#include "io/files/durable_file.hpp"
#include "io/run/attention_reader.hpp"
#include "io/run/step_files.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

constexpr const char* prefix = "step-";

/// A file that belongs to the run. Throws DataError that says why it does not.
AttentionReader open_own(const fs::path& file, const AttentionFileInfo& info) {
  AttentionReader reader(file);
  if (reader.info().run_id != info.run_id) throw DataError("{}: is of another run", file.string());
  if (reader.step() != step_of_file(file, prefix))
    throw DataError("{}: holds step {}, not that of its name", file.string(), reader.step());
  return reader;
}

void require_folder(const fs::path& folder) {
  if (const std::string obstacle = folder_obstacle(folder); !obstacle.empty())
    throw ConfigError(
        "{}: {}, expected a folder for the attention maps, or none yet; move it away or choose another --run",
        folder.string(), obstacle);
}

bool same_contents(const AttentionFileInfo& a, const AttentionFileInfo& b) {
  const auto of = [](const AttentionFileInfo& info) {
    auto probes = info.probes;  // a file lists them in alphabetical order
    std::sort(probes.begin(), probes.end(), [](const auto& p, const auto& q) { return p.name < q.name; });
    return std::tuple(info.tokenizer, info.layers, info.heads, info.statistic_names, probes);
  };
  return of(a) == of(b);
}

void set_aside(const fs::path& file, const std::string& reason) {
  fs::path aside;
  std::error_code failure;
  for (int n = 1; aside.empty() || fs::exists(fs::symlink_status(aside, failure)); ++n)
    aside = fmt::format("{}.aside-{}", file.string(), n);
  fs::rename(file, aside, failure);
  if (failure)
    throw SaveError("{}: cannot be renamed to {}: {}; it is in the way: {}", file.string(), aside.string(),
                    failure.message(), reason);
  log_warning("{}; renamed to {}", reason, aside.filename().string());
}

}  // namespace

std::string attention_file_name(long step) {
  return step_file_name(prefix, step);
}

KeptAttention kept_attention(const fs::path& folder, AttentionFileInfo info, long kept_step) {
  info = as_written(std::move(info));
  KeptAttention kept;
  if (kept_step < 0) return kept;  // a --fresh sets aside what is in the place of the folder
  require_folder(folder);
  for (const fs::path& file : list_step_files(folder, prefix)) {
    const long step = step_of_file(file, prefix);
    if (step > kept_step) continue;
    std::error_code unknown;
    if (const std::uintmax_t bytes = fs::file_size(file, unknown); !unknown) kept.bytes += bytes;
    try {
      if (same_contents(open_own(file, info).info(), info)) kept.steps.insert(step);
    } catch (const DataError&) {
      // set aside by the start
    }
  }
  return kept;
}

AttentionFolder::AttentionFolder(const fs::path& folder, AttentionFileInfo info, long kept_step)
    : folder_(link_target(folder)), info_(as_written(std::move(info))) {
  require_folder(folder);
  remove_left_over(folder_, prefix);
  bool removed = false;
  for (const fs::path& file : list_step_files(folder_, prefix)) {
    const long step = step_of_file(file, prefix);
    std::error_code failure;
    try {
      const AttentionReader reader = open_own(file, info_);
      if (step > kept_step) {
        removed |= fs::remove(file, failure);
      } else {
        reader.verify();
        if (same_contents(reader.info(), info_)) steps_.insert(step);
      }
    } catch (const ReadError&) {
      throw;
    } catch (const DataError& error) {
      set_aside(file, error.what());
    }
    if (failure)
      throw SaveError("{}: is of a step that will be repeated and cannot be removed: {}; remove it", file.string(),
                      failure.message());
  }
  if (removed) sync_folder(folder_);
}

void AttentionFolder::write(long step, std::span<const AttentionMaps> one_per_probe) {
  if (step < 0 || has(step)) throw std::logic_error(fmt::format("attention folder: step {} once more", step));
  try {
    if (fs::create_directory(folder_)) sync_folder(folder_.parent_path());
  } catch (const std::exception& error) {
    throw SaveError("attention maps of step {} are not saved: {}", step, error.what());
  }
  const fs::path file = folder_ / attention_file_name(step);
  std::error_code unknown;
  if (fs::exists(fs::symlink_status(file, unknown)))
    set_aside(file,
              fmt::format("{}: holds other texts, layers or heads than the configuration names", file.string()));
  write_attention_file(file, info_, step, one_per_probe);
  steps_.insert(step);
}

}  // namespace dekoder
