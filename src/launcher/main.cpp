// SPDX-License-Identifier: Apache-2.0
// The executable `dekoder`: no Kokkos. Reads the command line and the configuration, opens one plug-in and runs it.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "base/exit_report.hpp"
#include "base/log.hpp"
#include "base/rank_launcher.hpp"
#include "config/config_fields.hpp"
#include "config/run_config_yaml.hpp"
#include "config/setting_value.hpp"
#include "launcher/backend_loader.hpp"
#include "launcher/command_line.hpp"
#include "launcher/environment.hpp"
#include "launcher/mpi_session.hpp"
#include "launcher/process_start.hpp"
#include "launcher/signal_table.hpp"

namespace dekoder {

namespace {

/// The file that starts this program again; empty where /proc is missing. A start script that calls a loader of its
/// own (jobs/bundle) gives its own full path as argv[0]; what runs is the loader then, by /proc/self/exe.
std::filesystem::path own_path(const char* called) {
  std::error_code missing;
  if (called[0] == '/' && std::filesystem::exists(called, missing)) return called;
  return std::filesystem::read_symlink("/proc/self/exe", missing);
}

/// Commands of the post-processing that are reached by this program too.
bool is_of_post_processing(std::string_view command) {
  return command == "compare" || command == "watch" || command == "runs" || command == "sweep";
}

/// Becomes such a command, dekoder-compare say, which reads what runs have written and asks this program for the
/// rest: it finds the way back in DEKODER_PROGRAM. Throws ConfigError where it cannot be started.
[[noreturn]] void become_post_processing(char** argv) {
  if (const std::filesystem::path self = own_path(argv[0]); !self.empty())
    ::setenv("DEKODER_PROGRAM", self.c_str(), 1);
  const std::string command = argv[1];
  handle_signals(command);  // it is started with what this process was started with
  std::string name = "dekoder-" + command;
  argv[1] = name.data();
  ::execvp(name.c_str(), argv + 1);
  throw ConfigError(
      "`dekoder {}` is {} of the post-processing, which cannot be started: {}; expected it on "
      "the PATH, as in the toolbox: add the checkout's postprocess/bin to it, or pip install ./postprocess",
      command, name, std::strerror(errno));
}

/// What a process is to do, once nothing speaks against it.
struct Work {
  Command command;
  const dekoder_backend* backend;
};

/// Commands that several ranks share; the others are one process's.
bool runs_on_several_ranks(const std::string& command) {
  return command == "train" || command == "bench" || command == "selftest";
}

/// Commands that need a device; the others look at files alone.
bool computes(const std::string& command) {
  return command != "status" && command != "prepare" && command != "tokens" && command != "checkpoint" &&
         command != "export" && command != "import";
}

/// "float" or "bf16": as asked for; that of the configuration; that of the run directory to which the path of a
/// run, of one of its checkpoints or black boxes leads; else float, which commands that look at files alone take,
/// too. Throws ConfigError as parse_run_config.
std::string precision_of(const CommandLine& line) {
  const Command& command = line.command;
  Precision precision = Precision::fp32;
  if (!command.config.empty())
    precision = parse_run_config(command.config_text, command.config, command.sets).training.precision;
  if (!computes(command.name)) return "float";
  if (line.precision != "auto") return line.precision;
  if (!command.run.empty() && command.config.empty()) {
    std::error_code ignored;
    const std::filesystem::path run = std::filesystem::absolute(command.run, ignored);
    const std::filesystem::path root =
        std::filesystem::is_directory(run, ignored) ? run : run.parent_path().parent_path();
    try {
      const std::string file = (root / "config.yaml").string();
      precision = recorded_run_config(read_config_text(file), file).training.precision;
    } catch (const ConfigError&) {
      // what the run is made of the command itself says
    }
  }
  return yaml_value(precision);
}

/// All that may be refused before the backend has work; nothing where there is nothing to do.
std::optional<Work> prepare(int argc, char** argv, int ranks) {
  std::optional<CommandLine> line = read_command_line(argc, argv);
  if (!line) return std::nullopt;
  Command& command = line->command;
  if (ranks > 1 && !runs_on_several_ranks(command.name))
    throw ConfigError("`dekoder {}` was started on {} ranks; it runs on one: start a single one", command.name,
                      ranks);
  handle_signals(command.name);
  const std::string precision = precision_of(*line);  // faults of the configuration show before anything is loaded
  check_environment();
  const CpuMask& cpus = process_start().cpus;
  check_address_space(cpus);
  bind_threads(cpus);
  const LoadedBackend backend = load_backend(line->backend, precision, computes(command.name));
  command.backend = backend.description;
  if (precision != "float" && command.config.empty())
    log_info("precision: {}", precision);  // others log the backend
  return Work{command, backend.plugin};
}

int run(int argc, char** argv) {
  if (argc > 1 && is_of_post_processing(argv[1])) become_post_processing(argv);
  const MpiSession ranks;
  set_log_rank(ranks.rank());
  if (ranks.rank() != 0 && std::freopen("/dev/null", "w", stdout) == nullptr)
    return 1;  // results are rank 0's to print
  std::optional<Work> work;
  std::exception_ptr failure;
  try {
    work = prepare(argc, argv, ranks.size());
  } catch (...) {
    failure = std::current_exception();
  }
  if (const auto first = ranks.first_failure(failure ? failure_of(failure).code : ExitCode::finished)) {
    if (first->rank == ranks.rank()) log_on_any_rank(failure_of(failure).message);
    ranks.barrier();  // no rank ends, and takes the others along, before the message is out
    return static_cast<int>(first->code);
  }
  if (!work) return 0;
  const CpuMask& cpus = process_start().cpus;
  const dekoder_process process{stop_signal, cpus.set(), cpus.bytes()};
  return work->backend->run(to_yaml(work->command).c_str(), &process);
}

}  // namespace

}  // namespace dekoder

int main(int argc, char** argv) {
  std::set_terminate(dekoder::end_with_current_exception);
  dekoder::set_log_rank(dekoder::announced_rank());
  try {
    return dekoder::run(argc, argv);
  } catch (...) {
    return static_cast<int>(dekoder::report_current_exception());
  }
}
