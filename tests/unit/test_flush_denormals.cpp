// SPDX-License-Identifier: Apache-2.0
#include "tensor/flush_denormals.hpp"

#include <gtest/gtest.h>
#include <omp.h>

#include <limits>
#include <vector>

namespace dekoder::testing {
namespace {

struct Outcome {
  bool ran = false, result_is_zero = false, operand_is_zero = false;
};

/// What one thread of every Kokkos region sees of a denormal result and of a denormal operand.
std::vector<Outcome> outcomes(const ExecSpace& exec) {
  std::vector<Outcome> seen(std::size_t(exec.concurrency()));
  Kokkos::parallel_for("dekoder::test::denormals", Kokkos::TeamPolicy<ExecSpace>(exec, 64 * exec.concurrency(), 1),
                       [&seen](const Kokkos::TeamPolicy<ExecSpace>::member_type&) {
                         volatile float small = std::numeric_limits<float>::min(), half = 0.5f, large = 0x1p100f;
                         volatile float denormal = std::numeric_limits<float>::denorm_min();
                         const volatile float result = small * half, from_operand = denormal * large;
                         seen[std::size_t(omp_get_thread_num())] = {true, result == 0.0f, from_operand == 0.0f};
                       });
  exec.fence();
  return seen;
}

TEST(FlushDenormals, HoldsInEveryThread) {
#if defined(__SSE__)
  const ExecSpace exec;
  for (const Outcome& thread : outcomes(exec))
    EXPECT_FALSE(thread.ran && thread.operand_is_zero) << "flushed already";
  flush_denormals(exec);
  int number = 0;
  for (const Outcome& thread : outcomes(exec)) {
    EXPECT_TRUE(thread.ran) << "thread " << number << " had no work";
    EXPECT_TRUE(thread.result_is_zero) << "thread " << number << ": FTZ";
    EXPECT_TRUE(thread.operand_is_zero) << "thread " << number << ": DAZ";
    ++number;
  }
#else
  GTEST_SKIP() << "no MXCSR on this processor";
#endif
}

}  // namespace
}  // namespace dekoder::testing
