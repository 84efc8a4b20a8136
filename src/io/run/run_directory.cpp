// SPDX-License-Identifier: Apache-2.0
#include "io/run/run_directory.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>

#include "base/error.hpp"
#include "base/log.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/input_file.hpp"
#include "io/run/previous_run.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// Makes a folder and makes sure that files can be made in it.
void make_folder(const fs::path& folder) {
  if (const std::string obstacle = folder_obstacle(folder); !obstacle.empty())
    throw ConfigError("{}: {}, expected a folder for the run; move it away or choose another --run",
                      folder.string(), obstacle);
  std::error_code failure;
  if (fs::is_symlink(folder, failure))
    fs::create_directory(link_target(folder), failure);
  else
    fs::create_directories(folder, failure);
  if (failure)
    throw ConfigError("{}: cannot be made: {}; choose another --run", folder.string(), failure.message());
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    throw ConfigError("{}: cannot be written: {}; choose another --run or change its permissions", folder.string(),
                      std::strerror(errno));
}

/// The folder, made where it is missing, before anything in it is touched.
RunPaths prepared(const fs::path& root) {
  make_folder(root);
  return RunPaths{root};
}

template <class Write>
void as_config_error(const Write& write) {
  try {
    write();
  } catch (const DataError& error) {
    throw ConfigError("{}; free some space or choose another run directory with --run", error.what());
  }
}

}  // namespace

const char* run_state_name(RunState state) {
  switch (state) {
    case RunState::resumable:
      return "resumable";
    case RunState::finished:
      return "finished";
    case RunState::failed:
      return "failed";
  }
  throw std::logic_error("unknown RunState");
}

RunDirectory::RunDirectory(const fs::path& root) : paths_(prepared(root)), lock_(paths_.lock()) {
  undo_interrupted_move(paths_.root);
  make_folder(paths_.checkpoints());
}

void RunDirectory::set_aside() const {
  lock_.require_held();
  const fs::path previous = move_to_previous(paths_.root, paths_.of_a_run());
  make_folder(paths_.checkpoints());
  if (!previous.empty()) log_info("earlier files are in {}", previous.string());
}

void RunDirectory::require_writable_config() const {
  as_config_error([&] { output_target(paths_.config()); });
}

void RunDirectory::write_config(const std::string& yaml) const {
  lock_.stop_if_lost();
  as_config_error([&] { write_file_whole(paths_.config(), yaml); });
}

void RunDirectory::write_status(const RunStatus& status) const {
  lock_.stop_if_lost();
  std::string message = status.message;
  for (char& c : message)
    if (c == '\n') c = ' ';
  try {
    write_file_whole(paths_.status(),
                     fmt::format("state: {}\nstep: {}\nsteps: {}\nmessage: {}\n", run_state_name(status.state),
                                 status.step, status.steps, message));
  } catch (const DataError& error) {
    log_warning("status not written: {}", error.what());
  }
}

std::optional<RunStatus> read_run_status(const RunPaths& paths) {
  const std::optional<std::string> text = read_text_file(paths.status(), "status of a run");
  if (!text) return std::nullopt;
  std::istringstream file(*text);
  RunStatus status;
  std::string state_key, state, step_key, steps_key, message_key;
  file >> state_key >> state >> step_key >> status.step >> steps_key >> status.steps >> message_key;
  bool known = !file.fail() && state_key == "state:" && step_key == "step:" && steps_key == "steps:";
  if (state == "resumable")
    status.state = RunState::resumable;
  else if (state == "finished")
    status.state = RunState::finished;
  else if (state == "failed")
    status.state = RunState::failed;
  else
    known = false;
  if (!known) throw DataError("{}: is not the status of a run; delete it", paths.status().string());
  std::getline(file >> std::ws, status.message);
  return status;
}

}  // namespace dekoder
