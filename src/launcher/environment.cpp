// SPDX-License-Identifier: Apache-2.0
#include "launcher/environment.hpp"

#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>

#include "backend/backend_abi.h"
#include "base/decimal.hpp"
#include "base/error.hpp"
#include "base/utf8.hpp"

namespace dekoder {

namespace {

/// `text`, with blanks around it, is a whole number from `least` to `most`.
bool is_number(std::string_view text, int least, int most) {
  constexpr std::string_view blanks = " \t";
  text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
  text = text.substr(0, text.find_last_not_of(blanks) + 1);
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && least <= number && number <= most;
}

/// Numbers as is_number, with commas between them; at least one.
bool are_numbers(std::string_view text, int least, int most) {
  while (true) {
    const std::size_t comma = text.find(',');
    if (!is_number(text.substr(0, comma), least, most)) return false;
    if (comma == std::string_view::npos) return true;
    text.remove_prefix(comma + 1);
  }
}

bool is_thread_count(std::string_view text) {
  return is_number(text, 1, DEKODER_MAX_THREADS);
}
bool are_thread_counts(std::string_view text) {
  return are_numbers(text, 1, DEKODER_MAX_THREADS);
}
/// Seconds since 1970, up to the year 9999.
bool is_time(std::string_view text) {
  long seconds = 0;
  return read_decimal(text, seconds) == Decimal::read && 0 <= seconds && seconds < 253'402'300'800;
}
bool is_rank_count(std::string_view text) {
  return is_number(text, 1, std::numeric_limits<int>::max());
}
/// Of a rank or a GPU.
bool is_index(std::string_view text) {
  return is_number(text, 0, std::numeric_limits<int>::max());
}
bool are_devices(std::string_view text) {
  return are_numbers(text, 0, std::numeric_limits<int>::max());
}
bool is_device_mapping(std::string_view text) {
  return text == "mpi_rank" || text == "random";
}

/// HDF5 takes empty ones for none.
bool is_posix_driver(std::string_view text) {
  return text.empty() || text == "sec2";
}
bool is_native_connector(std::string_view text) {
  return text.empty() || text == "native";
}

bool is_bucket(std::string_view text) {
  return is_number(text, 4096, 1 << 30);
}

bool is_seconds(std::string_view text) {
  return is_number(text, 1, 86400);
}

bool is_switch(std::string_view text) {
  return text == "0" || text == "1";
}

/// As Kokkos reads them: in small or capital letters.
bool is_boolean(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return 'A' <= c && c <= 'Z' ? char(c - 'A' + 'a') : c; });
  for (const char* word : {"yes", "true", "1", "no", "false", "0"})
    if (lower == word) return true;
  return false;
}

struct Variable {
  const char* name;
  bool (*accepts)(std::string_view);
  std::string expected;
};

/// OpenMP's threads by level of nesting (dekoder nests none), ranks and the end that a launcher announces, all that
/// Kokkos 5 converts, and what would make HDF5's files other than plain ones, which are synchronised, renamed and
/// opened again by name. HDF5 reads the latter two as it starts, and prints its stack of errors where it cannot.
/// Other KOKKOS_ and HDF5_ variables are left alone: environment modules set some, such as KOKKOS_ROOT.
const Variable variables[] = {
    {"OMP_NUM_THREADS", are_thread_counts,
     fmt::format("a whole number from 1 to {}, or several with commas", DEKODER_MAX_THREADS)},
    {"KOKKOS_NUM_THREADS", is_thread_count, fmt::format("a whole number from 1 to {}", DEKODER_MAX_THREADS)},
    {"OMPI_COMM_WORLD_SIZE", is_rank_count, "a whole number from 1, as mpirun sets it"},
    {"SLURM_STEP_NUM_TASKS", is_rank_count, "a whole number from 1, as srun sets it"},
    {"PMI_SIZE", is_rank_count, "a whole number from 1, as mpiexec sets it"},
    {"OMPI_COMM_WORLD_RANK", is_index, "a whole number from 0, as mpirun sets it"},
    {"SLURM_PROCID", is_index, "a whole number from 0, as srun sets it"},
    {"PMI_RANK", is_index, "a whole number from 0, as mpiexec sets it"},
    {"SLURM_JOB_END_TIME", is_time, "seconds since 1970, as Slurm sets it"},
    {"KOKKOS_DEVICE_ID", is_index, "the number of a GPU, from 0"},
    {"KOKKOS_VISIBLE_DEVICES", are_devices, "the numbers of GPUs, from 0, with commas"},
    {"KOKKOS_MAP_DEVICE_ID_BY", is_device_mapping, "mpi_rank or random"},
    {"DEKODER_TF32", is_switch, "0 or 1: fp32 products on GPUs by TF32"},
    {"DEKODER_BUCKET_BYTES", is_bucket, "a whole number from 4096 to 1073741824: gradients that travel together"},
    {"DEKODER_SHARE_GPU", is_switch, "0 or 1: several ranks may compute on one GPU"},
    {"DEKODER_WATCHDOG_SECONDS", is_seconds,
     "a whole number from 1 to 86400: how long nothing may go on, at least, before ranks that hang are ended"},
    {"DEKODER_MPI_STAGING", is_switch, "0 or 1: messages of GPUs by way of host memory"},
    {"KOKKOS_DISABLE_WARNINGS", is_boolean, "true or false"},
    {"KOKKOS_PRINT_CONFIGURATION", is_boolean, "true or false"},
    {"KOKKOS_TUNE_INTERNALS", is_boolean, "true or false"},
    {"HDF5_DRIVER", is_posix_driver, "sec2, as files are plain ones"},
    {"HDF5_VOL_CONNECTOR", is_native_connector, "native, as files are plain ones"},
};

/// Threads that OpenMP will start; Kokkos' own variable wins.
int asked_threads(const CpuMask& cpus) {
  for (const char* name : {"KOKKOS_NUM_THREADS", "OMP_NUM_THREADS"})
    if (const char* value = std::getenv(name)) return std::atoi(value);
  return cpus.cpus();
}

}  // namespace

void check_environment() {
  for (const Variable& variable : variables)
    if (const char* value = std::getenv(variable.name); value != nullptr && !variable.accepts(value))
      throw ConfigError("environment variable {} is '{}'; expected {}; set it so, or unset it", variable.name,
                        excerpt(value), variable.expected);
  const char* old_name = std::getenv("KOKKOS_PROFILE_LIBRARY");
  const char* new_name = std::getenv("KOKKOS_TOOLS_LIBS");
  if (old_name != nullptr && new_name != nullptr && std::string_view(old_name) != new_name)
    throw ConfigError(
        "environment variable KOKKOS_PROFILE_LIBRARY is '{}' and KOKKOS_TOOLS_LIBS is '{}'; expected the same: the "
        "first is an old name of the second; unset it",
        excerpt(old_name), excerpt(new_name));
}

void check_address_space(const CpuMask& cpus) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  constexpr std::size_t MiB = std::size_t{1} << 20;
  const int threads = asked_threads(cpus);
  const std::size_t need =
      (256 + 96 * std::size_t(threads)) * MiB;  // libraries; a stack and a buffer for each thread
  void* const room = mmap(nullptr, need, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED)
    throw ConfigError(
        "the limit of address space (ulimit -v) is {} kB; libraries and {} threads need {} kB and what the process "
        "has; raise it, or lower OMP_NUM_THREADS",
        limit.rlim_cur / 1024, threads, need / 1024);
  munmap(room, need);
}

void bind_threads(const CpuMask& cpus) {
  for (const char* name : {"OMP_PROC_BIND", "KMP_AFFINITY"})
    if (std::getenv(name) != nullptr) return;
  for (const char* name : {"OMP_PLACES", "GOMP_CPU_AFFINITY"})
    if (std::getenv(name) != nullptr) {
      setenv("OMP_PROC_BIND", "true", 0);  // what they imply; Kokkos warns where it is not said
      return;
    }
  const int threads = asked_threads(cpus);
  const bool all_cores = cpus.cores() <= threads && threads <= cpus.cpus();
  setenv("OMP_PROC_BIND", all_cores ? "close" : "false", 0);
  if (all_cores) setenv("OMP_PLACES", "cores", 0);
}

}  // namespace dekoder
