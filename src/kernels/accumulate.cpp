// SPDX-License-Identifier: Apache-2.0
#include "kernels/accumulate.hpp"

#include <string>

namespace dekoder {

namespace {

template <class Body>
void for_each_element(const std::string& label, const ExecSpace& exec, long elements, const Body& body) {
  using Policy = Kokkos::RangePolicy<ExecSpace, Kokkos::Schedule<Kokkos::Static>, Kokkos::IndexType<long>>;
  Kokkos::parallel_for(label, Policy(exec, 0, elements), body);
}

}  // namespace

void add(const ExecSpace& exec, ConstMasterTensor1 x, MasterTensor1 sum) {
  const long N = add_shapes.match(x, sum)['N'];
  for_each_element("dekoder::add", exec, N, KOKKOS_LAMBDA(long i) { sum(i) += x(i); });
}

void move_add(const ExecSpace& exec, MasterTensor1 x, MasterTensor1 sum) {
  const long N = move_add_shapes.match(x, sum)['N'];
  for_each_element(
      "dekoder::move_add", exec, N, KOKKOS_LAMBDA(long i) {
        sum(i) += x(i);
        x(i) = 0;
      });
}

void move(const ExecSpace& exec, MasterTensor1 x, MasterTensor1 y) {
  const long N = move_shapes.match(x, y)['N'];
  for_each_element(
      "dekoder::move", exec, N, KOKKOS_LAMBDA(long i) {
        y(i) = x(i);
        x(i) = 0;
      });
}

void move_towards(const ExecSpace& exec, Real share, ConstMasterTensor1 x, MasterTensor1 average) {
  const long N = move_towards_shapes.match(x, average)['N'];
  for_each_element(
      "dekoder::move_towards", exec, N, KOKKOS_LAMBDA(long i) { average(i) += share * (x(i) - average(i)); });
}

void exchange(const ExecSpace& exec, MasterTensor1 x, MasterTensor1 y) {
  const long N = exchange_shapes.match(x, y)['N'];
  for_each_element(
      "dekoder::exchange", exec, N, KOKKOS_LAMBDA(long i) {
        const Master kept = x(i);
        x(i) = y(i);
        y(i) = kept;
      });
}

void clear(const ExecSpace& exec, MasterTensor1 x) {
  const long N = clear_shapes.match(x)['N'];
  for_each_element("dekoder::clear", exec, N, KOKKOS_LAMBDA(long i) { x(i) = 0; });
}

}  // namespace dekoder
