// SPDX-License-Identifier: Apache-2.0
#include "io/run/checkpoint_folder.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "io/run/step_files.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

bool is_gone(const fs::path& file) {
  std::error_code ignored;
  return fs::symlink_status(file, ignored).type() == fs::file_type::not_found;
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
      if (!is_gone(file)) log_warning("checkpoint not used: {}", error.what());
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
  return step_of_file(file, checkpoint_prefix);
}

std::vector<fs::path> list_checkpoints(const fs::path& folder) {
  return list_step_files(folder, checkpoint_prefix);
}

std::optional<LoadedCheckpoint> restart_checkpoint(const fs::path& folder, const ReadCheckpoint& read) {
  const std::vector<fs::path> files = list_checkpoints(folder);
  std::optional<LoadedCheckpoint> loaded;
  if (!files.empty()) loaded = first_valid(files, read);
  remove_left_over(folder, checkpoint_prefix);
  if (!loaded) return std::nullopt;
  for (const RejectedCheckpoint& rejected : loaded->rejected) {
    std::error_code failure;
    fs::rename(rejected.file, rejected.file.string() + ".corrupt", failure);
    if (failure) log_warning("{}: cannot be renamed to .corrupt: {}", rejected.file.string(), failure.message());
  }
  return loaded;
}

LoadedCheckpoint newest_checkpoint(const fs::path& folder, const ReadCheckpoint& read) {
  for (int tries = 1;; ++tries) {
    const std::vector<fs::path> files = list_checkpoints(folder);
    if (files.empty())
      throw DataError("{}: there is no checkpoint yet (ckpt-<step>.h5); train, or wait for the first one",
                      folder.string());
    try {
      return first_valid(files, read);
    } catch (const DataError&) {
      if (tries == 10 || std::none_of(files.begin(), files.end(), is_gone)) throw;
    }
  }
}

std::vector<bool> kept_checkpoints(const std::vector<fs::path>& files, int keep, long best_step,
                                   long superseded_step) {
  std::vector<bool> kept;
  int newest = 0;
  for (const fs::path& file : files) {
    const long step = checkpoint_step(file);
    const bool superseded = step == superseded_step && newest > 0;
    const bool among_newest = !superseded && newest < std::max(keep, 1);
    if (among_newest) ++newest;
    kept.push_back(among_newest || step == best_step);
  }
  return kept;
}

void rotate_checkpoints(const fs::path& folder, int keep, long best_step, long superseded_step) {
  const std::vector<fs::path> files = list_checkpoints(folder);
  const std::vector<bool> kept = kept_checkpoints(files, keep, best_step, superseded_step);
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (kept[i]) continue;
    std::error_code failure;
    fs::remove(files[i], failure);
    if (failure) log_warning("{}: old checkpoint cannot be deleted: {}", files[i].string(), failure.message());
  }
}

}  // namespace dekoder
