// SPDX-License-Identifier: Apache-2.0
#include "base/helper_thread.hpp"

#include <gtest/gtest.h>
#include <pthread.h>

#include <array>
#include <csignal>
#include <new>
#include <stdexcept>
#include <string>

#include "base/cpu_mask.hpp"
#include "base/error.hpp"
#include "base/exit_report.hpp"

namespace dekoder {
namespace {

/// What a helper thread found itself to be.
struct Found {
  std::array<char, 16> name{};
  CpuMask cpus;
  bool takes_signals = true;
};

Found helper_of_bound_thread() {
  Found found;
  std::thread starter([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(std::size_t(sched_getcpu()), &one);
    CpuMask(&one, sizeof(one)).give_to_this_thread();
    EXPECT_EQ(CpuMask::of_this_thread().cpus(), 1);
    std::thread helper = start_helper_thread("helper", [&] {
      pthread_getname_np(pthread_self(), found.name.data(), found.name.size());
      found.cpus = CpuMask::of_this_thread();
      sigset_t blocked;
      pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
      found.takes_signals = sigismember(&blocked, SIGTERM) == 0 || sigismember(&blocked, SIGUSR2) == 0;
    });
    sigset_t own;
    pthread_sigmask(SIG_SETMASK, nullptr, &own);
    EXPECT_EQ(sigismember(&own, SIGTERM), 0);
    helper.join();
  });
  starter.join();
  return found;
}

TEST(HelperThread, MayRunOnAllOfTheProcess) {
  const CpuMask all = CpuMask::of_this_thread();
  set_process_cpus(all);
  const Found found = helper_of_bound_thread();
  EXPECT_EQ(found.cpus.cpus(), all.cpus());
  EXPECT_STREQ(found.name.data(), "helper");
  EXPECT_FALSE(found.takes_signals);
}

TEST(CpuMask, CoresAndCpus) {
  const CpuMask mask = CpuMask::of_this_thread();
  EXPECT_GE(mask.cpus(), 1);
  EXPECT_GE(mask.cores(), 1);
  EXPECT_LE(mask.cores(), mask.cpus());
  EXPECT_LE(mask.cores(), online_cores());
  EXPECT_EQ(CpuMask().cpus(), 0);
  CpuMask().give_to_this_thread();  // leaves the thread where it is
  EXPECT_EQ(CpuMask::of_this_thread().cpus(), mask.cpus());
}

/// What nobody can catch ends the process with its own message and exit code: never by std::terminate's abort.
template <class Thrown>
void throw_on_helper(Thrown what) {
  start_helper_thread("helper", [&] { throw what; }).join();
}

TEST(HelperThreadDeath, ExceptionsEndTheProcessInOrder) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto exits = [](ExitCode code) { return testing::ExitedWithCode(static_cast<int>(code)); };
  EXPECT_EXIT(throw_on_helper(DataError("text.txt: gone")), exits(ExitCode::no_data),
              "dekoder: error: text.txt: gone");
  EXPECT_EXIT(throw_on_helper(std::bad_alloc()), exits(ExitCode::usage), "dekoder: error: out of memory; lower ");
  EXPECT_EXIT(throw_on_helper(std::runtime_error("Kokkos failed to allocate memory for label")),
              exits(ExitCode::usage), "dekoder: error: out of memory");
  EXPECT_EXIT(throw_on_helper(std::logic_error("odd")), exits(ExitCode::internal), "internal error .*: odd");
  EXPECT_EXIT(throw_on_helper(1), exits(ExitCode::internal), "internal error .*: an exception without a text");
  EXPECT_EXIT(end_with_current_exception(), exits(ExitCode::internal),
              "internal error .*: std::terminate was called");
}

}  // namespace
}  // namespace dekoder
