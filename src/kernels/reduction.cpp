// SPDX-License-Identifier: Apache-2.0
#include "kernels/reduction.hpp"

#include <algorithm>
#include <climits>
#include <vector>

namespace dekoder {

long reduction_leaves(std::size_t elements) {
  return static_cast<long>((elements + reduction_leaf - 1) / std::size_t(reduction_leaf));
}

namespace {

struct Identity {
  KOKKOS_FORCEINLINE_FUNCTION static Accumulator of(Real x) { return Accumulator(x); }
};
struct Square {
  KOKKOS_FORCEINLINE_FUNCTION static Accumulator of(Real x) { return Accumulator(x) * Accumulator(x); }
};

/// One thread per leaf: eight running sums in a fixed order, so that the loop has no long chain of dependent
/// additions.
template <class Term>
std::span<const Accumulator> leaf_sums(const std::string& label, const ExecSpace& exec, const ConstMasterTensor1& x,
                                       const AccumulatorTensor1& partials) {
  const std::size_t N = x.size();
  const long leaves = reduction_leaves(N);
  using Policy = Kokkos::RangePolicy<ExecSpace, Kokkos::IndexType<long>>;
  Kokkos::parallel_for(
      label, Policy(exec, 0, leaves), KOKKOS_LAMBDA(long leaf) {
        const std::size_t begin = std::size_t(leaf) * std::size_t(reduction_leaf);
        const int count = int(N - begin < std::size_t(reduction_leaf) ? N - begin : std::size_t(reduction_leaf));
        const Master* values = &x(begin);
        constexpr int lanes = 8;
        Accumulator lane_sum[lanes] = {};
        const int whole = count / lanes * lanes;
        for (int i = 0; i < whole; i += lanes)
          for (int lane = 0; lane < lanes; ++lane) lane_sum[lane] += Term::of(values[i + lane]);
        // Every index is known at compile time: the sums stay in registers.
        for (int lane = 0; lane < lanes; ++lane)
          if (whole + lane < count) lane_sum[lane] += Term::of(values[whole + lane]);
        partials(leaf) = ((lane_sum[0] + lane_sum[1]) + (lane_sum[2] + lane_sum[3])) +
                         ((lane_sum[4] + lane_sum[5]) + (lane_sum[6] + lane_sum[7]));
      });
  const Accumulator* of_leaf = partials.data();
  if constexpr (!device_is_host) {
    thread_local std::vector<Accumulator> on_host;  // kept: a training step allocates nothing
    on_host.resize(std::size_t(leaves));
    of_leaf = on_host.data();
    Kokkos::deep_copy(exec, Kokkos::View<Accumulator*, Layout, Kokkos::HostSpace>(on_host.data(), on_host.size()),
                      rows(partials, 0, leaves));
  }
  exec.fence("dekoder::sum");
  return {of_leaf, std::size_t(leaves)};
}

void require_leaves(const char* function, std::size_t elements, long partials) {
  if (partials < reduction_leaves(elements))
    throw ShapeError(fmt::format("{}: partials has P={}; expected at least {} for N={}", function, partials,
                                 reduction_leaves(elements), elements));
}

}  // namespace

double sum(const ExecSpace& exec, ConstMasterTensor1 x, AccumulatorTensor1 partials) {
  sum_shapes.match(x, partials);
  require_leaves("sum", x.size(), long(partials.extent(0)));
  return sum_of_leaves(leaf_sums<Identity>("dekoder::sum", exec, x, partials));
}

double sum_of_squares(const ExecSpace& exec, ConstMasterTensor1 x, AccumulatorTensor1 partials) {
  sum_of_squares_shapes.match(x, partials);
  require_leaves("sum_of_squares", x.size(), long(partials.extent(0)));
  return sum_of_leaves(leaf_sums<Square>("dekoder::sum_of_squares", exec, x, partials));
}

std::span<const Accumulator> leaf_sums_of_squares(const ExecSpace& exec, ConstMasterTensor1 x,
                                                  AccumulatorTensor1 partials) {
  leaf_sums_of_squares_shapes.match(x, partials);
  require_leaves("leaf_sums_of_squares", x.size(), long(partials.extent(0)));
  return leaf_sums<Square>("dekoder::sum_of_squares", exec, x, partials);
}

double sum_of_leaves(std::span<const double> leaves) {
  double total = 0;
  for (const double leaf : leaves) total += leaf;
  return total;
}

long first_non_finite(const ExecSpace& exec, ConstMasterTensor1 x) {
  first_non_finite_shapes.match(x);
  long first = LONG_MAX;
  Kokkos::parallel_reduce(
      "dekoder::first_non_finite",
      Kokkos::RangePolicy<ExecSpace, Kokkos::IndexType<long>>(exec, 0, long(x.extent(0))),
      KOKKOS_LAMBDA(long i, long& least) {
        if (!Kokkos::isfinite(x(i)) && i < least) least = i;
      },
      Kokkos::Min<long>(first));
  exec.fence("dekoder::first_non_finite");
  return first == LONG_MAX ? -1 : first;
}

}  // namespace dekoder
