// SPDX-License-Identifier: Apache-2.0
#include "kernels/reduction.hpp"

#include "support/host_tensor.hpp"

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
        x(std::size_t(place)) = Real(bad);
        EXPECT_FALSE(std::isfinite(sum_of_squares(exec, x, partials))) << N << " " << place;
        x(std::size_t(N - 1)) = Real(bad);
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

TEST(Reduction, ResultsDoNotDependOnThreads) {
  const ExecSpace all;
  const auto parts =
      Kokkos::Experimental::partition_space(all, std::vector<int>(std::size_t(all.concurrency()), 1));
  const auto x = random_tensor<Tensor1>(9, 1000003);
  const AccumulatorTensor1 partials("partials", std::size_t(reduction_leaves(x.size())));
  EXPECT_EQ(sum(all, x, partials), sum(parts[0], x, partials));
  EXPECT_EQ(sum_of_squares(all, x, partials), sum_of_squares(parts[0], x, partials));
}

TEST(Reduction, TooFewPartialsAreAnError) {
  const ExecSpace exec;
  EXPECT_EQ(reduction_leaves(4097), 2);
  EXPECT_THROW(sum(exec, Tensor1("x", 4097), AccumulatorTensor1("partials", 1)), ShapeError);
  EXPECT_THROW(sum_of_squares(exec, Tensor1("x", 4097), AccumulatorTensor1("partials", 1)), ShapeError);
}

}  // namespace
}  // namespace dekoder::testing
