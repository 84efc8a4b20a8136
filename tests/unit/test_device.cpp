// SPDX-License-Identifier: Apache-2.0
#include "tensor/device.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>

#include "base/error.hpp"

namespace dekoder {
namespace {

using Variables = std::map<std::string, std::string>;

/// choose_gpu with these environment variables and no others that it reads.
GpuChoice choose(int gpus, const Variables& variables) {
  for (const char* name :
       {"KOKKOS_VISIBLE_DEVICES", "KOKKOS_DEVICE_ID", "KOKKOS_MAP_DEVICE_ID_BY", "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "PMI_SIZE", "MPI_LOCALRANKID"})
    unsetenv(name);
  for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
  return choose_gpu(gpus);
}

/// The driver's number of the GPU that is taken.
int number(int gpus, const Variables& variables) {
  const GpuChoice choice = choose(gpus, variables);
  return choice.visible.at(std::size_t(choice.index.value()));
}

TEST(Device, IsTakenByVariablesAndRank) {
  EXPECT_EQ(choose(3, {}).visible, (std::vector{0, 1, 2}));
  EXPECT_EQ(number(3, {}), 0);
  EXPECT_EQ(number(3, {{"KOKKOS_DEVICE_ID", "2"}}), 2);
  EXPECT_EQ(number(4, {{"KOKKOS_VISIBLE_DEVICES", "3, 1"}}), 3);
  EXPECT_EQ(number(4, {{"KOKKOS_VISIBLE_DEVICES", "3,1"}, {"KOKKOS_DEVICE_ID", " 1"}}), 1);
  const Variables rank_5 = {{"OMPI_COMM_WORLD_SIZE", "8"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "5"}};
  EXPECT_EQ(number(4, rank_5), 1);
  EXPECT_EQ(number(1, rank_5), 0);
  EXPECT_EQ(number(2, {{"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_LOCALID", "3"}}), 1);
  EXPECT_EQ(number(4, {{"PMI_SIZE", "8"}, {"MPI_LOCALRANKID", "2"}, {"KOKKOS_MAP_DEVICE_ID_BY", "mpi_rank"}}), 2);
  EXPECT_FALSE(choose(2, {{"KOKKOS_MAP_DEVICE_ID_BY", "random"}}).index) << "Kokkos draws it";
}

TEST(Device, OneThatIsNotThereIsRefused) {
  for (const Variables& variables :
       {Variables{{"KOKKOS_DEVICE_ID", "2"}}, Variables{{"KOKKOS_VISIBLE_DEVICES", "0,2"}},
        Variables{{"KOKKOS_VISIBLE_DEVICES", "1"}, {"KOKKOS_DEVICE_ID", "1"}}})
    try {
      choose(2, variables);
      ADD_FAILURE() << variables.begin()->second;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("environment variable KOKKOS_"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("expected numbers from 0 to "), std::string::npos) << error.what();
    }
}

}  // namespace
}  // namespace dekoder
