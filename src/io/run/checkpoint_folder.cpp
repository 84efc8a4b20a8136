// SPDX-License-Identifier: Apache-2.0
#include "io/run/checkpoint_folder.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "base/log.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/input_file.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// Step of "<prefix><8 digits or more><suffix>", or -1 where the name is another one.
long step_in(std::string_view name, std::string_view prefix, std::string_view suffix) {
  if (!name.starts_with(prefix) || !name.ends_with(suffix) || name.size() < prefix.size() + suffix.size() + 8)
    return -1;
  name = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  long step = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  return error == std::errc() && end == name.data() + name.size() ? step : -1;
}

/// What a writer that died has left, also of the names ".ckpt-<step>.h5.tmp" of minor version 0 of the format.
void remove_left_over(const fs::path& folder) {
  remove_unfinished_files(folder);
  std::error_code failure;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, failure)) {
    if (step_in(entry.path().filename().string(), ".ckpt-", ".h5.tmp") < 0) continue;
    std::error_code ignored;
    if (fs::remove(entry.path(), ignored))
      log_info("removed {}, left by a writer that did not finish", entry.path().string());
  }
}

/// Tries `read` on each file, newest first.
LoadedCheckpoint first_valid(const std::vector<fs::path>& files, const ReadCheckpoint& read) {
  LoadedCheckpoint loaded;
  for (const fs::path& file : files) {
    try {
      loaded.info = read(file);
      if (loaded.info.step != checkpoint_step(file))
        throw DataError("{}: holds step {}, not that of its name", file.string(), loaded.info.step);
      loaded.file = file;
      return loaded;
    } catch (const NewerFormatError&) {
      throw;
    } catch (const ReadError& error) {
      throw ReadError("{}; no older checkpoint is used in its place, and nothing was changed", error.what());
    } catch (const DataError& error) {
      loaded.rejected.push_back({file, error.what()});
      log_warning("checkpoint not used: {}", error.what());
    }
  }
  std::string reasons;
  for (const RejectedCheckpoint& rejected : loaded.rejected) reasons += "\n  " + rejected.reason;
  throw DataError(
      "none of {} checkpoint files can be used; restore one, or start afresh in another run directory:{}",
      files.size(), reasons);
}

}  // namespace

long checkpoint_step(const fs::path& file) {
  return step_in(file.filename().string(), "ckpt-", ".h5");
}

std::vector<fs::path> list_checkpoints(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code failure;
  for (fs::directory_iterator entry(folder, failure), end; !failure && entry != end; entry.increment(failure))
    if (checkpoint_step(entry->path()) >= 0) files.push_back(entry->path());
  if (failure && failure != std::errc::no_such_file_or_directory)
    throw_read_error(folder.string(), failure.value(), "cannot be listed");
  std::sort(files.begin(), files.end(),
            [](const fs::path& a, const fs::path& b) { return checkpoint_step(a) > checkpoint_step(b); });
  return files;
}

std::optional<LoadedCheckpoint> restart_checkpoint(const fs::path& folder, const ReadCheckpoint& read) {
  const std::vector<fs::path> files = list_checkpoints(folder);
  std::optional<LoadedCheckpoint> loaded;
  if (!files.empty()) loaded = first_valid(files, read);
  remove_left_over(folder);
  if (!loaded) return std::nullopt;
  for (const RejectedCheckpoint& rejected : loaded->rejected) {
    std::error_code failure;
    fs::rename(rejected.file, rejected.file.string() + ".corrupt", failure);
    if (failure) log_warning("{}: cannot be renamed to .corrupt: {}", rejected.file.string(), failure.message());
  }
  return loaded;
}

LoadedCheckpoint newest_checkpoint(const fs::path& folder, const ReadCheckpoint& read) {
  const std::vector<fs::path> files = list_checkpoints(folder);
  if (files.empty())
    throw DataError("{}: there is no checkpoint yet (ckpt-<step>.h5); train, or wait for the first one",
                    folder.string());
  return first_valid(files, read);
}

void rotate_checkpoints(const fs::path& folder, int keep, long best_step, long superseded_step) {
  int kept = 0;
  for (const fs::path& file : list_checkpoints(folder)) {
    const long step = checkpoint_step(file);
    const bool superseded = step == superseded_step && kept > 0;
    const bool among_newest = !superseded && kept < std::max(keep, 1);
    if (among_newest) ++kept;
    if (among_newest || step == best_step) continue;
    std::error_code failure;
    fs::remove(file, failure);
    if (failure) log_warning("{}: old checkpoint cannot be deleted: {}", file.string(), failure.message());
  }
}

}  // namespace dekoder
