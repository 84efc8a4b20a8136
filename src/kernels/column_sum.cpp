// SPDX-License-Identifier: Apache-2.0
#include "kernels/column_sum.hpp"

#include "kernels/rows.hpp"

namespace dekoder {

void require_partials(const char* function, long given, long needed) {
  if (given < needed)
    throw ShapeError(fmt::format("{}: partials has P={} rows; expected at least {}", function, given, needed));
}

#if defined(DEKODER_ROW_TEAMS)
void add_partials(const std::string& label, const ExecSpace& exec, ConstMasterTensor2 partials, long blocks,
                  long first_column, MasterTensor1 result) {
  add_partials_by_teams(label, exec, partials, blocks, first_column, result);
}
#else
/// A chunk of columns per thread, which goes through the blocks in ascending order.
void add_partials(const std::string& label, const ExecSpace& exec, ConstMasterTensor2 partials, long blocks,
                  long first_column, MasterTensor1 result) {
  constexpr int columns = 128;
  const long C = long(result.extent(0));
  for_each_row(
      label, exec, (C + columns - 1) / columns, KOKKOS_LAMBDA(const RowTeam& team, long chunk) {
        const long begin = chunk * columns;
        const int count = int(C - begin < columns ? C - begin : columns);
        Master* sum = &result(begin);
        for (long p = 0; p < blocks; ++p) {
          const Master* part = &partials(p, first_column + begin);
          team.each(count, [=](int c) { sum[c] += part[c]; });
        }
      });
}
#endif

void add_partials_by_teams(const std::string& label, const ExecSpace& exec, ConstMasterTensor2 partials,
                           long blocks, long first_column, MasterTensor1 result) {
  constexpr int columns = 32, lanes = partial_lanes;
  using Policy = Kokkos::TeamPolicy<ExecSpace>;
  using LaneSums = Kokkos::View<Master[lanes][columns], Layout, ExecSpace::scratch_memory_space,
                                Kokkos::MemoryTraits<Kokkos::Unmanaged>>;
  const long C = long(result.extent(0));
  Policy policy(exec, int((C + columns - 1) / columns), device_is_host ? 1 : lanes, columns);
  policy.set_scratch_size(0, Kokkos::PerTeam(int(LaneSums::shmem_size())));
  Kokkos::parallel_for(
      label, policy, KOKKOS_LAMBDA(const Policy::member_type& member) {
        const LaneSums sums(member.team_scratch(0));
        const long begin = long(member.league_rank()) * columns;
        const int count = int(C - begin < columns ? C - begin : columns);
        Kokkos::parallel_for(Kokkos::TeamThreadRange(member, lanes), [&](int lane) {
          Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, count), [&](int c) {
            Master sum = 0;
            for (long p = lane; p < blocks; p += lanes) sum += partials(p, first_column + begin + c);
            sums(lane, c) = sum;
          });
        });
        for (int half = lanes / 2; half > 0; half /= 2) {
          member.team_barrier();
          Kokkos::parallel_for(Kokkos::TeamThreadRange(member, half), [&](int lane) {
            Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, count),
                                 [&](int c) { sums(lane, c) += sums(lane + half, c); });
          });
        }
        member.team_barrier();
        Kokkos::parallel_for(Kokkos::TeamThreadRange(member, 1), [&](int) {
          Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, count),
                               [&](int c) { result(begin + c) += sums(0, c); });
        });
      });
}

}  // namespace dekoder
