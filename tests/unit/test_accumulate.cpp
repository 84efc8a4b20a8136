// SPDX-License-Identifier: Apache-2.0
#include "kernels/accumulate.hpp"

#include "support/host_tensor.hpp"

namespace dekoder::testing {
namespace {

TEST(Accumulate, AddsMovesAndClears) {
  const ExecSpace exec;
  for (const int N : {1, 7, 4096, 100003}) {
    SCOPED_TRACE(N);
    const auto x = random_tensor<MasterTensor1>(1, N), start = random_tensor<MasterTensor1>(2, N);
    const std::vector<double> of_x = values_of(x), zeros(std::size_t(N), 0.0);
    const std::vector<double> of_start = values_of(start);
    std::vector<double> sums = of_start;
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = double(Master(sums[i]) + Master(of_x[i]));
    const auto sum = clone(start), moved_sum = clone(start), source = clone(x);
    add(exec, x, sum);
    EXPECT_TRUE(near(sum, sums, 0.0));
    EXPECT_TRUE(near(x, of_x, 0.0)) << "is only read";
    move_add(exec, source, moved_sum);
    EXPECT_TRUE(near(moved_sum, sums, 0.0));
    EXPECT_TRUE(near(source, zeros, 0.0));
    const auto target = filled_tensor<MasterTensor1>(NAN, N);
    move(exec, x, target);
    EXPECT_TRUE(near(target, of_x, 0.0));
    EXPECT_TRUE(near(x, zeros, 0.0));
    const Real share = Real(0.3);
    const auto average = clone(start);
    move_towards(exec, share, target, average);
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = 0.7 * of_start[i] + 0.3 * of_x[i];
    EXPECT_TRUE(near(average, sums, 1e-6));
    EXPECT_TRUE(near(target, of_x, 0.0)) << "is only read";
    const std::vector<double> averaged = values_of(average);
    exchange(exec, average, target);
    EXPECT_TRUE(near(average, of_x, 0.0));
    EXPECT_TRUE(near(target, averaged, 0.0));
    clear(exec, target);
    EXPECT_TRUE(near(target, zeros, 0.0));
  }
}

TEST(Accumulate, LengthsThatDifferAreErrors) {
  const MasterTensor1 x("x", 5), y("y", 6);
  EXPECT_THROW(add(ExecSpace(), x, y), ShapeError);
  EXPECT_THROW(move_add(ExecSpace(), x, y), ShapeError);
  EXPECT_THROW(move(ExecSpace(), x, y), ShapeError);
  EXPECT_THROW(move_towards(ExecSpace(), 1, x, y), ShapeError);
  EXPECT_THROW(exchange(ExecSpace(), x, y), ShapeError);
}

}  // namespace
}  // namespace dekoder::testing
