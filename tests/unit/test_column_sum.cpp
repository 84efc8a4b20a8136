// SPDX-License-Identifier: Apache-2.0
#include "kernels/column_sum.hpp"

#include "kernels/rows.hpp"

#include "support/host_tensor.hpp"
#include "support/one_thread.hpp"

namespace dekoder::testing {
namespace {

/// Calls check(partials, P, first, start) for shapes around the widths of lanes and chunks of columns.
template <class Check>
void for_each_shape(const Check& check) {
  for (const int P : {1, 2, partial_lanes - 1, partial_lanes, partial_lanes + 1, 100})
    for (const int C : {1, 31, 32, 33, 128, 129})
      for (const int first : {0, C}) {
        SCOPED_TRACE(fmt::format("P={} C={} first={}", P, C, first));
        check(random_tensor<MasterTensor2>(1, P + 1, 2 * C), P, first, random_tensor<MasterTensor1>(2, C));
      }
}

#if !defined(DEKODER_ROW_TEAMS)
TEST(ColumnSum, AddsBlocksInAscendingOrder) {
  for_each_shape([](const MasterTensor2& partials, int P, int first, const MasterTensor1& sums) {
    const std::vector<double> start = values_of(sums);
    add_partials("test", ExecSpace(), partials, P, first, sums);
    const auto terms = on_host(partials);
    const auto got = on_host(sums);
    for (std::size_t c = 0; c < start.size(); ++c) {
      Master expected = Master(start[c]);
      for (int p = 0; p < P; ++p) expected += terms(p, std::size_t(first) + c);
      EXPECT_EQ(got(c), expected) << c;
    }
  });
}
#else
TEST(ColumnSum, IsThatOfTeams) {
  for_each_shape([](const MasterTensor2& partials, int P, int first, const MasterTensor1& sums) {
    const MasterTensor1 by_teams = clone(sums);
    add_partials("test", ExecSpace(), partials, P, first, sums);
    add_partials_by_teams("test", ExecSpace(), partials, P, first, by_teams);
    EXPECT_TRUE(identical(sums, by_teams));
  });
}
#endif

TEST(ColumnSum, TeamsAddLanesByHalves) {
  for_each_shape([](const MasterTensor2& partials, int P, int first, const MasterTensor1& sums) {
    const std::vector<double> start = values_of(sums);
    add_partials_by_teams("test", ExecSpace(), partials, P, first, sums);
    const auto terms = on_host(partials);
    const auto got = on_host(sums);
    for (std::size_t c = 0; c < start.size(); ++c) {
      Master lanes[partial_lanes] = {};
      for (int p = 0; p < P; ++p) lanes[p % partial_lanes] += terms(p, std::size_t(first) + c);
      for (int half = partial_lanes / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
      EXPECT_EQ(got(c), Master(start[c]) + lanes[0]) << c;
    }
  });
}

#if !defined(DEKODER_BACKEND_CUDA)
/// An execution space of one thread has the least memory for teams, so that they must ask for theirs.
TEST(ColumnSum, AnyNumberOfThreadsGivesTheSameBits) {
  const auto one = one_thread();
  if (!one) GTEST_SKIP() << "one thread only: nothing to compare";
  for_each_shape([&](const MasterTensor2& partials, int P, int first, const MasterTensor1& sums) {
    for (const auto add : {add_partials, add_partials_by_teams}) {
      const MasterTensor1 alone("alone", sums.extent(0)), all("all", sums.extent(0));
      Kokkos::deep_copy(alone, sums);
      Kokkos::deep_copy(all, sums);
      add("test", *one, partials, P, first, alone);
      add("test", ExecSpace(), partials, P, first, all);
      EXPECT_EQ(values_of(alone), values_of(all));
    }
  });
}
#endif

}  // namespace
}  // namespace dekoder::testing
