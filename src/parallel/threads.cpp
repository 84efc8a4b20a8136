// SPDX-License-Identifier: Apache-2.0
#include "parallel/threads.hpp"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <latch>
#include <memory>
#include <thread>
#include <vector>

#include "base/cpu_mask.hpp"
#include "base/cpu_quota.hpp"
#include "base/error.hpp"
#include "base/helper_thread.hpp"
#include "base/log.hpp"
#include "base/rank_launcher.hpp"
#include "base/utf8.hpp"

namespace dekoder {

namespace {

/// Starts `count` threads at once and ends them again. Of a refusal OpenMP would end the process with a text of its
/// own.
void try_threads(int count) {
  struct {
    std::latch all_started{1};
    std::vector<std::thread> threads;
  } tried;
  const auto end = [](auto* group) {
    group->all_started.count_down();
    for (std::thread& thread : group->threads) thread.join();
  };
  const std::unique_ptr<decltype(tried), decltype(end)> ended(&tried, end);
  tried.threads.reserve(std::size_t(count));
  for (int i = 0; i < count; ++i)
    tried.threads.push_back(start_helper_thread("dekoder-try", [&] { tried.all_started.wait(); }));
}

std::atomic<bool> openmp_starts = false;

/// Another program may have taken the last thread since try_threads, or OMP_STACKSIZE be too much.
void report_openmp_exit() {
  if (!openmp_starts) return;
  const char* stack = std::getenv("OMP_STACKSIZE");
  log_info("error: {}{}{}", thread_refusal("OpenMP gave up"), stack != nullptr ? "; OMP_STACKSIZE is " : "",
           stack != nullptr ? excerpt(stack) : "");
  _exit(static_cast<int>(ExitCode::usage));
}

}  // namespace

void start_openmp(int most) {
  omp_set_dynamic(0);  // by OMP_DYNAMIC it would give fewer on a busy machine
  const char* of_kokkos = std::getenv("KOKKOS_NUM_THREADS");  // the launcher has checked it
  const int asked = of_kokkos != nullptr ? std::atoi(of_kokkos) : omp_get_max_threads();
  if (asked > most)
    throw ConfigError("OpenMP would start {} threads; expected at most {}; set OMP_NUM_THREADS", asked, most);
  try_threads(asked - 1);
  std::atexit(report_openmp_exit);
  openmp_starts = true;
  int given = 0;
#pragma omp parallel num_threads(asked) reduction(+ : given)
  ++given;
  openmp_starts = false;
  if (given != asked)
    throw ConfigError(
        "OpenMP starts {} of {} threads; expected all; unset OMP_THREAD_LIMIT and OMP_MAX_ACTIVE_LEVELS, or set "
        "OMP_NUM_THREADS to {}",
        given, asked, given);
}

ThreadFacts thread_facts() {
  constexpr std::array bindings{"false", "true", "primary", "close", "spread"};
  const CpuMask cpus = process_cpus();
  const auto binding = static_cast<std::size_t>(omp_get_proc_bind());
  return {omp_get_max_threads(), cpus.cpus(), cpus.cores(), online_cores(),
          binding < bindings.size() ? bindings[binding] : "unknown"};
}

void log_threads() {
  const ThreadFacts facts = thread_facts();
  const std::string hardware = facts.cpus == facts.cores ? "" : fmt::format(" ({} CPUs)", facts.cpus);
  log_info("threads: {}; cores: {} of the machine's {}{}; {}", facts.threads, facts.cores, facts.machine_cores,
           hardware, facts.binding == "false" ? "not bound" : "bound to cores (" + facts.binding + ")");
  const RankLauncher* launcher = rank_launcher();
  const char* more_cores = launcher != nullptr ? launcher->more_cores : "taskset, the job's cpuset";
  if (facts.threads > facts.cpus)
    log_warning("{} threads share {} cores; set OMP_NUM_THREADS to {}, or give the process more cores ({})",
                facts.threads, facts.cores, facts.cpus, more_cores);
  else if (launcher != nullptr && facts.cores == 1 && facts.machine_cores > 1 &&
           std::getenv("OMP_NUM_THREADS") == nullptr)
    log_warning("{} gave this process 1 of the machine's {} cores; for more: {}", launcher->name,
                facts.machine_cores, more_cores);
  else if (const double quota = cpu_quota(); quota > 0 && facts.threads > quota)
    log_warning(
        "{} threads may take the time of {:g} CPUs, the limit of their control group; {}give the container or "
        "the job more",
        facts.threads, quota,
        facts.threads > 1 ? fmt::format("set OMP_NUM_THREADS to {:.0f}, or ", std::max(1.0, quota)) : "");
}

}  // namespace dekoder
