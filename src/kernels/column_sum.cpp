// SPDX-License-Identifier: Apache-2.0
#include "kernels/column_sum.hpp"

#include "kernels/rows.hpp"

namespace dekoder {

void require_partials(const char* function, int given, int needed) {
  if (given < needed)
    throw ShapeError(fmt::format("{}: partials has P={} rows; expected at least {}", function, given, needed));
}

void add_partials(const std::string& label, const ExecSpace& exec, ConstTensor2 partials, int blocks,
                  int first_column, Tensor1 result) {
  constexpr int columns = 128;
  const int C = result.extent_int(0);
  for_each_row(
      label, exec, (C + columns - 1) / columns, KOKKOS_LAMBDA(const RowTeam& team, int chunk) {
        const int begin = chunk * columns, count = C - begin < columns ? C - begin : columns;
        Real* sum = &result(begin);
        for (int p = 0; p < blocks; ++p) {
          const Real* part = &partials(p, first_column + begin);
          team.each(count, [=](int c) { sum[c] += part[c]; });
        }
      });
}

}  // namespace dekoder
