// SPDX-License-Identifier: Apache-2.0
#include "base/rank_launcher.hpp"

#include <algorithm>
#include <cstdlib>

namespace dekoder {

namespace {

constexpr RankLauncher launchers[] = {
    {"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK",
     "mpirun --bind-to none, or --map-by slot:pe=N"},
    {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "srun --cpus-per-task=N"},
    {"mpiexec", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "mpiexec -bind-to none"},
};

int number(const char* variable) {
  const char* value = std::getenv(variable);
  return value == nullptr ? 0 : std::atoi(value);
}

}  // namespace

const RankLauncher* rank_launcher() {
  for (const RankLauncher& launcher : launchers)
    if (std::getenv(launcher.ranks) != nullptr) return &launcher;
  return nullptr;
}

int announced_ranks() {
  const RankLauncher* launcher = rank_launcher();
  return launcher == nullptr ? 1 : std::max(number(launcher->ranks), 1);
}

int announced_rank() {
  return announced_ranks() > 1 ? number(rank_launcher()->rank) : 0;
}

int announced_local_rank() {
  return announced_ranks() > 1 ? std::max(number(rank_launcher()->local_rank), 0) : 0;
}

}  // namespace dekoder
