// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/run/run_lock.hpp"

namespace dekoder {

/// What a run would do if it were started again.
enum class RunState { resumable, finished, failed };
/// "resumable", "finished", "failed".
const char* run_state_name(RunState state);

/// Contents of the file `status`: what a script asks before it starts a run again.
struct RunStatus {
  RunState state = RunState::resumable;
  long step = 0;        ///< of the newest checkpoint; 0: none
  long steps = 0;       ///< of the whole run
  std::string message;  ///< why it failed, or who stopped it
};

/// Where the files of a run lie.
struct RunPaths {
  std::filesystem::path root;

  std::filesystem::path config() const { return root / "config.yaml"; }
  std::filesystem::path metrics() const { return root / "metrics.jsonl"; }
  std::filesystem::path samples() const { return root / "samples.jsonl"; }
  std::filesystem::path restarts() const { return root / "restarts.jsonl"; }
  /// Of older programs.
  std::filesystem::path samples_text() const { return root / "samples.txt"; }
  std::filesystem::path attention() const { return root / "attention"; }
  /// All attention maps of a run begun by a program of attention format 1.
  std::filesystem::path single_attention_file() const { return root / "attention.h5"; }
  /// What `dekoder predictions` wrote.
  std::filesystem::path predictions() const { return root / "predictions"; }
  /// Steps that were not finite.
  std::filesystem::path black_box() const { return root / "black_box"; }
  std::filesystem::path checkpoints() const { return root / "checkpoints"; }
  std::filesystem::path status() const { return root / "status"; }
  std::filesystem::path lock() const { return root / "lock"; }
  /// All that a run leaves; the status, which says that there is one, last.
  std::vector<std::filesystem::path> of_a_run() const {
    return {
        config(),      metrics(),   samples(),     restarts(), samples_text(), attention(), single_attention_file(),
        predictions(), black_box(), checkpoints(), status()};
  }
};

/// A run directory held for writing by this process: one per process group, on rank 0.
class RunDirectory {
 public:
  /// Makes the folder, where it is missing, and locks it. Throws ConfigError, with nothing touched, where the path
  /// is no folder, cannot be written, has no space, or another process trains in it. A --fresh that was interrupted
  /// is undone first.
  explicit RunDirectory(const std::filesystem::path& root);

  const RunPaths& paths() const { return paths_; }
  /// Before what must not be written twice: see RunLock::require_held.
  void require_held() const { lock_.require_held(); }
  /// Before every other write: see RunLock::stop_if_lost.
  void stop_if_lost() const { lock_.stop_if_lost(); }
  /// Moves what an earlier run left, where there is any, into previous-<n>/ of the run directory, or leaves all of
  /// it (see move_to_previous). Before any file of the new run is opened. Throws SaveError.
  void set_aside() const;
  /// Throws ConfigError where something is in the place of config.yaml that cannot be replaced.
  void require_writable_config() const;
  /// Replaces config.yaml as a whole.
  void write_config(const std::string& yaml) const;
  /// Replaces the status as a whole; a failure is a warning, as training can go on without.
  void write_status(const RunStatus& status) const;

 private:
  RunPaths paths_;
  mutable RunLock lock_;  ///< its heartbeat changes nothing of the directory
};

/// Status of a run, also of one that is going on; nothing where the folder has none. Throws DataError where the
/// file is not as write_status makes it, ReadError where it cannot be read.
std::optional<RunStatus> read_run_status(const RunPaths& paths);

}  // namespace dekoder
