// SPDX-License-Identifier: Apache-2.0
#include "kernels/reduction.hpp"

#include <sys/mman.h>

#include <limits>

#include "support/host_tensor.hpp"
#include "support/one_thread.hpp"

namespace dekoder::testing {
namespace {

const int lengths[] = {1, 7, 8, 4095, 4096, 4097, 100001};

TEST(Reduction, SumsEqualLongDouble) {
  const ExecSpace exec;
  for (const int N : lengths) {
    SCOPED_TRACE(fmt::format("N={}", N));
    const auto x = random_tensor<Tensor1>(1, N);
    const AccumulatorTensor1 partials("partials", std::size_t(reduction_leaves(std::size_t(N))));
    long double expected = 0, squares = 0;
    for (const double value : values_of(x)) expected += value, squares += (long double)value * value;
    EXPECT_NEAR(sum(exec, x, partials), double(expected), 1e-12 * N);
    EXPECT_NEAR(sum_of_squares(exec, x, partials), double(squares), 1e-13 * N);
  }
}

TEST(Reduction, NanAndInfShow) {
  const ExecSpace exec;
  for (const int N : lengths) {
    const AccumulatorTensor1 partials("partials", std::size_t(reduction_leaves(std::size_t(N))));
    for (const int place : {0, N / 2, N - 1}) {
      for (const double bad : {NAN, INFINITY, -INFINITY}) {
        const auto x = random_tensor<Tensor1>(1, N);
        set_element(x, std::size_t(place), bad);
        EXPECT_FALSE(std::isfinite(sum_of_squares(exec, x, partials))) << N << " " << place;
        set_element(x, std::size_t(N - 1), bad);
        EXPECT_EQ(first_non_finite(exec, x), place) << "N=" << N;
      }
    }
    EXPECT_EQ(first_non_finite(exec, random_tensor<Tensor1>(1, N)), -1);
  }
}

TEST(Reduction, LargeFloatsDoNotOverflowInTheirSquares) {
  const ExecSpace exec;
  const auto x = filled_tensor<Tensor1>(1e30, 10);
  EXPECT_NEAR(sum_of_squares(exec, x, AccumulatorTensor1("partials", 1)), 1e61, 1e55);
}

#if !defined(DEKODER_BACKEND_CUDA)
TEST(Reduction, ResultsDoNotDependOnThreads) {
  const ExecSpace all;
  const auto one = one_thread();
  if (!one) GTEST_SKIP() << "one thread only: nothing to compare";
  const auto x = random_tensor<Tensor1>(9, 1000003);
  const AccumulatorTensor1 partials("partials", std::size_t(reduction_leaves(x.size())));
  EXPECT_EQ(sum(all, x, partials), sum(*one, x, partials));
  EXPECT_EQ(sum_of_squares(all, x, partials), sum_of_squares(*one, x, partials));
}
#endif

#if !defined(DEKODER_BACKEND_CUDA) && !defined(__SANITIZE_ADDRESS__)
// 8.6 GB of addresses, of which only the pages that are written take memory: all others are the kernel's one of
// zeros.
TEST(Reduction, CountsBeyond32Bits) {
  const std::size_t N = (std::size_t(1) << 31) + 4099;
  void* memory =
      mmap(nullptr, N * sizeof(Master), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  madvise(memory, N * sizeof(Master), MADV_NOHUGEPAGE);
  const MasterTensor1 x(static_cast<Master*>(memory), N);
  const AccumulatorTensor1 partials("partials", std::size_t(reduction_leaves(N)));
  x(0) = 2;
  x(N - 1) = 3;
  EXPECT_EQ(sum(ExecSpace(), x, partials), 5.0);
  EXPECT_EQ(sum_of_squares(ExecSpace(), x, partials), 13.0);
  x(N - 2) = std::numeric_limits<Master>::infinity();
  EXPECT_EQ(first_non_finite(ExecSpace(), x), long(N) - 2);
  munmap(memory, N * sizeof(Master));
}
#endif

TEST(Reduction, TooFewPartialsAreAnError) {
  const ExecSpace exec;
  EXPECT_EQ(reduction_leaves(4097), 2);
  EXPECT_THROW(sum(exec, Tensor1("x", 4097), AccumulatorTensor1("partials", 1)), ShapeError);
  EXPECT_THROW(sum_of_squares(exec, Tensor1("x", 4097), AccumulatorTensor1("partials", 1)), ShapeError);
}

}  // namespace
}  // namespace dekoder::testing
