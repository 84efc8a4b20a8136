// SPDX-License-Identifier: Apache-2.0
#include "kernels/rotary.hpp"

#include <cmath>

#include "kernels/rows.hpp"

namespace dekoder {

void turn_heads(const ExecSpace& exec, StoredTensor2 heads, int count, int head_size, ConstMasterTensor2 cosines,
                ConstMasterTensor2 sines, const FirstPositions& first_positions, int tokens_per_sample, Turn turn) {
  const auto extent = turn_heads_shapes.match(cosines, sines, heads);
  const int T = tokens_per_sample, D = head_size, half = extent['I'];
  if (T < 1 || !first_positions.fit(extent['N'] / T, T, extent['T']) || 2 * half > D || count * D > extent['W'])
    throw ShapeError(fmt::format(
        "turn_heads: {} heads of {} channels, R={}, {} tokens from positions {}..{} on, W={}, T={}", count, D,
        2 * half, T, first_positions.least, first_positions.largest, extent['W'], extent['T']));
  const FirstPositions start = first_positions;
  const Real sign = turn == Turn::forward ? Real(1) : Real(-1);
  for_each_row(
      "dekoder::turn_heads", exec, long(extent['N']), KOKKOS_LAMBDA(const RowTeam& team, long n) {
        const int position = start.of(n / T) + int(n % T);
        const Master* cosine = &cosines(position, 0);
        const Master* sine = &sines(position, 0);
        for (int h = 0; h < count; ++h) {
          Stored* first = &heads(n, h * D);
          Stored* second = first + half;
          team.each(half, [=](int i) {
            const Real a = first[i], b = second[i], s = sign * sine[i];
            first[i] = a * cosine[i] - b * s;
            second[i] = b * cosine[i] + a * s;
          });
        }
      });
}

void rotary_table(const ExecSpace& exec, const std::function<double(int)>& frequency, MasterTensor2 cosines,
                  MasterTensor2 sines) {
  const auto extent = rotary_table_shapes.match(cosines, sines);
  const auto host_cosines = Kokkos::create_mirror_view(cosines), host_sines = Kokkos::create_mirror_view(sines);
  for (int t = 0; t < extent['T']; ++t)
    for (int i = 0; i < extent['I']; ++i) {
      const double angle = t * frequency(i);
      host_cosines(t, i) = Master(std::cos(angle));
      host_sines(t, i) = Master(std::sin(angle));
    }
  Kokkos::deep_copy(exec, cosines, host_cosines);
  Kokkos::deep_copy(exec, sines, host_sines);
  exec.fence("dekoder::rotary_table");
}

}  // namespace dekoder
