// SPDX-License-Identifier: Apache-2.0
#include "kernels/column_sum.hpp"

#include "kernels/rows.hpp"

namespace dekoder {

void require_partials(const char* function, long given, long needed) {
  if (given < needed)
    throw ShapeError(fmt::format("{}: partials has P={} rows; expected at least {}", function, given, needed));
}

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

}  // namespace dekoder
