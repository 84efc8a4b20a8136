// SPDX-License-Identifier: Apache-2.0
// Reference values of one decoder variant (tests/parity/make_fixtures.py) and the comparison with them.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "config/run_config_yaml.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "tensor/parameter_store.hpp"

namespace dekoder::testing {

/// One tensor on the host: shape and elements in row-major order.
struct HostTensor {
  std::vector<std::size_t> shape;
  std::vector<double> values;

  /// "[3,17]": the indices of element `index`.
  std::string indices(std::size_t index) const {
    std::string text;
    for (std::size_t axis = shape.size(); axis-- > 0; index /= shape[axis])
      text = fmt::format("{}{}{}", index % shape[axis], text.empty() ? "" : ",", text);
    return "[" + text + "]";
  }
};

/// A copy of a tensor of any rank in device memory.
template <class Tensor>
HostTensor to_host(const Tensor& tensor) {
  const auto mirror = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), tensor);
  HostTensor result;
  for (std::size_t axis = 0; axis < Tensor::rank(); ++axis) result.shape.push_back(tensor.extent(axis));
  result.values.assign(mirror.data(), mirror.data() + mirror.size());
  return result;
}

/// An opened fixture. Errors: DataError of the HDF5 wrapper, ConfigError.
class ParityFixture {
 public:
  explicit ParityFixture(const std::filesystem::path& path)
      : file_(Hdf5File::open(path)),
        config_(parse_run_config(file_.text_attribute("/", "config"), path.string(), {"data.tokens=none"})) {}

  const RunConfig& config() const { return config_; }
  /// Optimizer steps recorded.
  int steps() const { return static_cast<int>(file_.shape("/tokens")[0]); }

  /// tokens(B,T) or targets(B,T) of one step.
  HostTokenTensor2 batch(const std::string& name, int step) const {
    const Hdf5Dataset dataset = file_.dataset("/" + name);
    const std::size_t B = dataset.shape()[1], T = dataset.shape()[2];
    const std::size_t offset[] = {std::size_t(step), 0, 0}, count[] = {1, B, T};
    HostTokenTensor2 tokens(name, B, T);
    dataset.read(std::span<Token>(tokens.data(), tokens.size()), offset, count);
    return tokens;
  }

  HostTensor tensor(const std::string& name) const {
    const Hdf5Dataset dataset = file_.dataset("/" + name);
    return {dataset.shape(), dataset.read<double>()};
  }
  /// Names of the parameters, in alphabetical order.
  std::vector<std::string> parameter_names() const { return file_.members("/parameters"); }

 private:
  Hdf5File file_;
  RunConfig config_;
};

/// How far a tensor lies from its reference, relative to the largest reference value.
struct Deviation {
  double largest = 0;           ///< max |actual - expected| / max |expected|
  double root_mean_square = 0;  ///< rms(actual - expected) / max |expected|
  std::string complaint;        ///< empty, or name, first element beyond the tolerance, both values

  void merge(const Deviation& other) {
    largest = std::max(largest, other.largest);
    root_mean_square = std::max(root_mean_square, other.root_mean_square);
  }
};

/// Compares elements, but those in [skip_begin, skip_end). `tolerance` is relative to the largest |expected|; NaN
/// fails.
inline Deviation deviation(const std::string& name, const HostTensor& actual, const HostTensor& expected,
                           double tolerance, std::size_t skip_begin = 0, std::size_t skip_end = 0) {
  Deviation result;
  if (actual.shape != expected.shape) {
    result.largest = INFINITY;
    result.complaint = fmt::format("{}: shape ({}), expected ({})", name, fmt::join(actual.shape, ","),
                                   fmt::join(expected.shape, ","));
    return result;
  }
  double scale = 0, squares = 0;
  for (double value : expected.values) scale = std::max(scale, std::abs(value));
  scale = std::max(scale, 1e-30);
  for (std::size_t i = 0; i < expected.values.size(); ++i) {
    if (i >= skip_begin && i < skip_end) continue;
    const double error = std::abs(actual.values[i] - expected.values[i]) / scale;
    squares += error * error;
    if (!(error <= result.largest)) result.largest = std::isnan(error) ? INFINITY : error;
    if (!(error <= tolerance) && result.complaint.empty())
      result.complaint = fmt::format(
          "{}{}: {:.9e}, expected {:.9e}; they differ by {:.2e} of the largest value {:.3e}, allowed {:.1e}", name,
          expected.indices(i), actual.values[i], expected.values[i], error, scale, tolerance);
  }
  result.root_mean_square = std::sqrt(squares / std::max<double>(1, double(expected.values.size())));
  if (!result.complaint.empty()) result.complaint += fmt::format("; the worst element by {:.2e}", result.largest);
  return result;
}

}  // namespace dekoder::testing
