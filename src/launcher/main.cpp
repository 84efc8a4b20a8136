// SPDX-License-Identifier: Apache-2.0
// The executable `dekoder`: no Kokkos. Reads the command line and the configuration, opens one plug-in and runs it.
#include <exception>

#include "base/exit_report.hpp"
#include "base/log.hpp"
#include "base/rank_launcher.hpp"
#include "config/run_config_yaml.hpp"
#include "launcher/backend_loader.hpp"
#include "launcher/command_line.hpp"
#include "launcher/environment.hpp"
#include "launcher/mpi_session.hpp"
#include "launcher/process_start.hpp"
#include "launcher/signal_table.hpp"

namespace dekoder {

namespace {

int run(int argc, char** argv) {
  const MpiSession ranks;
  if (ranks.size() > 1) {
    log_info("error: started on {} ranks; this version runs on one: start a single one", ranks.size());
    ranks.barrier();  // no rank ends, and takes the others along, before the message is out
    return static_cast<int>(ExitCode::usage);
  }
  const std::optional<CommandLine> line = read_command_line(argc, argv);
  if (!line) return 0;
  const Command& command = line->command;
  handle_signals(command.name);
  if (!command.config.empty())
    parse_run_config(command.config_text, command.config, command.sets);  // faults show before anything is loaded
  check_environment();
  const CpuMask& cpus = process_start().cpus;
  check_address_space(cpus);
  bind_threads(cpus);
  const dekoder_backend& backend = load_backend(line->backend);
  const dekoder_process process{stop_signal, cpus.set(), cpus.bytes()};
  return backend.run(to_yaml(command).c_str(), &process);
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
