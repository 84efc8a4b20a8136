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

namespace dekoder {

namespace {

namespace fs = std::filesystem;

RunPaths prepared(const fs::path& root) {
  std::error_code failure;
  const fs::file_status found = fs::status(root, failure);
  if (fs::exists(found) && !fs::is_directory(found))
    throw ConfigError("{}: is a file, expected a folder for the run; choose another --run", root.string());
  const RunPaths paths{root};
  if (const std::string holder = RunLock::live_holder(paths.lock()); !holder.empty())
    throw ConfigError(
        "{}: in use by {}; wait for it or choose another --run (if that process is surely gone, delete {})",
        root.string(), holder, paths.lock().string());
  fs::create_directories(paths.checkpoints(), failure);
  if (failure)
    throw ConfigError("{}: cannot be made: {}; choose another --run", paths.checkpoints().string(),
                      failure.message());
  for (const fs::path& folder : {paths.root, paths.checkpoints()})
    if (::access(folder.c_str(), W_OK | X_OK) != 0)
      throw ConfigError("{}: cannot be written: {}; choose another --run or change its permissions",
                        folder.string(), std::strerror(errno));
  return paths;
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

RunDirectory::RunDirectory(const fs::path& root) : paths_(prepared(root)), lock_(paths_.lock()) {}

void RunDirectory::set_aside() const {
  int n = 1;
  while (fs::exists(paths_.root / fmt::format("previous-{}", n))) ++n;
  const fs::path aside = paths_.root / fmt::format("previous-{}", n);
  try {
    for (const fs::path& file : {paths_.config(), paths_.metrics(), paths_.samples(), paths_.attention(),
                                 paths_.status(), paths_.checkpoints()}) {
      if (!fs::exists(file) || (fs::is_directory(file) && fs::is_empty(file))) continue;
      fs::create_directories(aside);
      fs::rename(file, aside / file.filename());
    }
    fs::create_directories(paths_.checkpoints());
  } catch (const fs::filesystem_error& error) {
    throw SaveError("{}: earlier files cannot be moved to {}: {}", paths_.root.string(), aside.string(),
                    error.code().message());
  }
  if (fs::exists(aside)) log_info("earlier files are in {}", aside.string());
}

void RunDirectory::write_config(const std::string& yaml) const {
  try {
    write_file_whole(paths_.config(), yaml);
  } catch (const DataError& error) {
    throw ConfigError("{}; free some space or choose another --run", error.what());
  }
}

void RunDirectory::write_status(const RunStatus& status) const {
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
