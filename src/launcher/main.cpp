// SPDX-License-Identifier: Apache-2.0
// The executable `dekoder`: no Kokkos. Reads the command line and the configuration, opens one plug-in and runs it.
#include <mpi.h>

#include <csignal>
#include <cstdlib>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "config/run_config_yaml.hpp"
#include "launcher/backend_loader.hpp"
#include "launcher/command_line.hpp"
#include "launcher/environment.hpp"

namespace dekoder {

namespace {

/// MPI for the commands that compute on all ranks of a job.
class MpiSession {
 public:
  MpiSession(int* argc, char*** argv) {
    int provided = 0;
    MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
  }
  ~MpiSession() { MPI_Finalize(); }
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
};

/// Ranks that the launcher of the job says it started, or 1.
int announced_ranks() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"})
    if (const char* value = std::getenv(name); value != nullptr) return std::atoi(value);
  return 1;
}

int announced_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "SLURM_PROCID"})
    if (const char* value = std::getenv(name); value != nullptr) return std::atoi(value);
  return 0;
}

/// This version runs on one rank: says so, once and before anything is touched, and returns false on any other
/// number.
bool on_one_rank() {
  int size = 1, rank = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (size > 1) {
    if (rank == 0)
      log_line(fmt::format("error: started on {} ranks; this version runs on one: start a single one", size));
    MPI_Barrier(MPI_COMM_WORLD);  // no rank ends, and takes the others along, before the message is out
    return false;
  }
  if (announced_ranks() > 1)
    throw ConfigError(
        "the job announces {} ranks but MPI sees 1: they would be {} separate runs; start a single rank (for "
        "several, "
        "later: srun --mpi=pmix or mpirun)",
        announced_ranks(), announced_ranks());
  return true;
}

/// The commands that ask for the stop flag end in order; every other one dies of a signal, as programs do. A
/// training outlives the reader of its log: lines that cannot be written are dropped.
void handle_signals(const std::string& command) {
  if (command == "train" || command == "eval" || command == "generate") install_stop_signals();
  if (command == "train") std::signal(SIGPIPE, SIG_IGN);
}

int run(int argc, char** argv) {
  const std::optional<CommandLine> line = read_command_line(argc, argv);
  if (!line) return 0;
  const Command& command = line->command;
  handle_signals(command.name);
  if (!command.config.empty())
    load_run_config(command.config, command.sets);  // faults show before anything is loaded
  check_environment();
  pin_threads();
  const dekoder_backend& backend = load_backend(line->backend);
  std::optional<MpiSession> mpi;
  if (command.name == "train" || command.name == "bench" || announced_ranks() > 1) {
    mpi.emplace(&argc, &argv);
    if (!on_one_rank()) return static_cast<int>(ExitCode::usage);
  }
  return backend.run(to_yaml(command).c_str(), stop_flag());
}

}  // namespace

}  // namespace dekoder

int main(int argc, char** argv) {
  dekoder::set_log_rank(dekoder::announced_rank());
  try {
    return dekoder::run(argc, argv);
  } catch (const dekoder::UserError& error) {
    dekoder::log_line(std::string("error: ") + error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    dekoder::log_line(std::string("internal error (please report it): ") + error.what());
    return static_cast<int>(dekoder::ExitCode::internal);
  }
}
