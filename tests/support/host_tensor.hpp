// SPDX-License-Identifier: Apache-2.0
// Tensors with known contents, copies on the host, and a comparison that names the first difference. Tests run for
// GPUs, too: what lies in device memory is read and written by these functions alone.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tensor/random_stream.hpp"
#include "tensor/tensor.hpp"

namespace dekoder::testing {

/// A tensor of standard normal numbers, a function of `seed` alone.
template <class Tensor, class... Extents>
Tensor random_tensor(std::uint64_t seed, Extents... extents) {
  Tensor tensor("random", static_cast<std::size_t>(extents)...);
  const auto host = Kokkos::create_mirror_view(tensor);
  const RandomStream stream(seed, site_of("test.tensor"));
  for (std::size_t i = 0; i < host.size(); ++i) host.data()[i] = Real(stream.normal(i));
  Kokkos::deep_copy(tensor, host);
  return tensor;
}

/// A tensor filled with `value`, e.g. NaN for memory that a function must overwrite.
template <class Tensor, class... Extents>
Tensor filled_tensor(double value, Extents... extents) {
  Tensor tensor("filled", static_cast<std::size_t>(extents)...);
  Kokkos::deep_copy(tensor, static_cast<typename Tensor::non_const_value_type>(value));
  return tensor;
}

/// A vector of tokens or flags on the device.
template <class Tensor, class Value, class... Extents>
Tensor tensor_of(const std::vector<Value>& values, Extents... extents) {
  Tensor tensor("values", static_cast<std::size_t>(extents)...);
  const auto host = Kokkos::create_mirror_view(tensor);
  for (std::size_t i = 0; i < host.size(); ++i)
    host.data()[i] = static_cast<typename Tensor::non_const_value_type>(values.at(i));
  Kokkos::deep_copy(tensor, host);
  return tensor;
}

/// A second tensor with the same contents.
template <class Tensor>
Tensor clone(const Tensor& tensor) {
  Tensor copy("clone", tensor.layout());
  Kokkos::deep_copy(copy, tensor);
  return copy;
}

/// A copy on the host to be read by index; where the host reaches the tensor's memory, that memory.
template <class Tensor>
auto on_host(const Tensor& tensor) {
  return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), tensor);
}

/// Calls change(x) with x as on_host gives it, and puts what it made of it into the tensor.
template <class Tensor, class Change>
void change(const Tensor& tensor, const Change& change) {
  const auto host = on_host(tensor);
  change(host);
  Kokkos::deep_copy(tensor, host);
}

/// Writes the element at a place in row-major order.
template <class Tensor>
void set_element(const Tensor& tensor, std::size_t place, double value) {
  using Value = typename Tensor::non_const_value_type;
  Kokkos::deep_copy(Kokkos::View<Value, MemSpace>(tensor.data() + place), static_cast<Value>(value));
}

/// The contents in row-major order, in double.
template <class Tensor>
std::vector<double> values_of(const Tensor& tensor) {
  const auto host = on_host(tensor);
  return std::vector<double>(host.data(), host.data() + host.size());
}

/// The largest error of a number that is rounded to Stored, relative to it: half a step of 2^-7 in bf16.
inline constexpr double stored_rounding = stored_is_short ? 0x1p-8 : 0;
/// Relative tolerance that suits sums of a few thousand terms in Real.
inline constexpr double tolerance = sizeof(Real) == 4 ? 2e-6 : 1e-13;

/// "(2,0,5)" for a place in row-major order.
template <class Tensor>
std::string index_text(const Tensor& tensor, std::size_t place) {
  std::string text;
  for (std::size_t axis = Tensor::rank(); axis-- > 0; place /= tensor.extent(axis))
    text = std::to_string(place % tensor.extent(axis)) + (text.empty() ? "" : ",") + text;
  return "(" + text + ")";
}

/// Passes where |got - expected| <= bound (1 + |expected|) everywhere, NaN and Inf alike; names the first bad
/// index.
template <class Tensor>
::testing::AssertionResult near(const Tensor& tensor, const std::vector<double>& expected,
                                double bound = tolerance) {
  const std::vector<double> got = values_of(tensor);
  if (got.size() != expected.size())
    return ::testing::AssertionFailure() << got.size() << " elements, expected " << expected.size();
  std::size_t bad = 0, first = 0;
  for (std::size_t i = got.size(); i-- > 0;) {
    const bool same = got[i] == expected[i] || (std::isnan(got[i]) && std::isnan(expected[i])) ||
                      std::abs(got[i] - expected[i]) <= bound * (1 + std::abs(expected[i]));
    if (!same) ++bad, first = i;
  }
  if (bad == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "first of " << bad << " differences at " << index_text(tensor, first)
                                       << ": got " << got[first] << ", expected " << expected[first];
}

/// Passes where both tensors hold the same numbers.
template <class Tensor>
::testing::AssertionResult identical(const Tensor& got, const Tensor& expected) {
  return near(got, values_of(expected), 0.0);
}

}  // namespace dekoder::testing
