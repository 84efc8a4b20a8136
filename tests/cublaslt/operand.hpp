// SPDX-License-Identifier: Apache-2.0
// A product's operands in host memory and the product in plain loops, for the tests of kernels/gemm_cublaslt.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "cublaslt/element.hpp"
#include "kernels/gemm_cublaslt.hpp"

/// `bytes` that begin `offset` bytes behind a multiple of 256, and no multiple of more than that.
class Memory {
 public:
  explicit Memory(std::size_t bytes, std::size_t offset = 0) : storage_(bytes + 512 + offset) {
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.data());
    data_ = storage_.data() + (256 - address % 256) + offset;
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void* data() { return data_; }
  const void* data() const { return data_; }

 private:
  std::vector<std::byte> storage_;
  std::byte* data_;
};

/// (batches, rows, columns) of random numbers in [-1, 1], with `gap` elements behind each row and `batch_gap`
/// behind each matrix; gaps are NaN. Where `one` is set there is one matrix for all of the batch.
class Operand {
 public:
  struct Place {
    std::int64_t gap = 0, batch_gap = 0;
    bool one = false;
    std::size_t offset = 0;  ///< in bytes, from a multiple of 256
  };
  Operand(cudaDataType_t type, std::int64_t batches, std::int64_t rows, std::int64_t columns, const Place& place,
          unsigned seed)
      : type_(type),
        row_(columns + place.gap),
        batch_(place.one ? 0 : rows * row_ + place.batch_gap),
        size_((place.one ? 0 : (batches - 1) * batch_) + rows * row_),
        memory_(std::size_t(size_) * element_bytes(type), place.offset) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<double> uniform(-1, 1);
    forget();
    for (std::int64_t b = 0; b < (place.one ? 1 : batches); ++b)
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t c = 0; c < columns; ++c) set(b * batch_ + r * row_ + c, uniform(generator));
  }
  double at(std::int64_t batch, std::int64_t row, std::int64_t column) const {
    return load_element(type_, memory_.data(), batch * batch_ + row * row_ + column);
  }
  void forget() {
    for (std::int64_t i = 0; i < size_; ++i) set(i, std::numeric_limits<float>::quiet_NaN());
  }
  dekoder::LtProduct::Matrix matrix() const { return {memory_.data(), row_, batch_}; }
  /// Numbers that are not NaN, gaps included.
  std::int64_t numbers() const {
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < size_; ++i) count += !std::isnan(load_element(type_, memory_.data(), i));
    return count;
  }

 private:
  void set(std::int64_t i, double x) { store_element(type_, memory_.data(), i, x); }

  cudaDataType_t type_;
  std::int64_t row_, batch_, size_;
  Memory memory_;
};

/// A product with its operands. Change the fields, then multiply().
struct Case {
  bool transpose_a = false, transpose_b = false, bias = false;
  std::int64_t M = 5, N = 7, K = 6;
  int batches = 2;
  cudaDataType_t stored = CUDA_R_32F, result = CUDA_R_32F;
  Operand::Place a{}, b{}, c{};
  std::size_t bias_offset = 0;
  std::size_t workspace = 1 << 16, workspace_offset = 0;
  double alpha = 0.75, beta = 0;
};

struct Outcome {
  double worst;      ///< largest difference to the product in double, by the size of the sum's terms
  std::int64_t bad;  ///< numbers outside of the result that were written, or NaN in it
};

/// Runs the case; `nan_before`: the result is NaN before, which a product with beta = 0 must not read.
inline Outcome multiply(dekoder::CublasLt& library, const Case& p, bool nan_before = false,
                        cudaStream_t stream = nullptr) {
  const Operand a(p.stored, p.batches, p.transpose_a ? p.K : p.M, p.transpose_a ? p.M : p.K, p.a, 1);
  const Operand b(p.stored, p.batches, p.transpose_b ? p.N : p.K, p.transpose_b ? p.K : p.N, p.b, 2);
  const Operand before(p.result, p.batches, p.M, p.N, p.c, 3);
  Operand c(p.result, p.batches, p.M, p.N, p.c, 3);
  const Operand bias(p.result, 1, 1, p.N, {.offset = p.bias_offset}, 4);
  if (nan_before) c.forget();
  Memory workspace(p.workspace, p.workspace_offset);
  library.multiply({.transpose_a = p.transpose_a,
                    .transpose_b = p.transpose_b,
                    .M = p.M,
                    .N = p.N,
                    .K = p.K,
                    .batches = p.batches,
                    .stored = p.stored,
                    .result = p.result,
                    .a = a.matrix(),
                    .b = b.matrix(),
                    .c = c.matrix(),
                    .bias = p.bias ? bias.matrix().data : nullptr},
                   p.alpha, p.beta, workspace.data(), p.workspace, stream);
  Outcome outcome{0, c.numbers() - p.batches * p.M * p.N};
  for (std::int64_t i = 0; i < p.batches; ++i)
    for (std::int64_t m = 0; m < p.M; ++m)
      for (std::int64_t n = 0; n < p.N; ++n) {
        double want = (p.bias ? bias.at(0, 0, n) : 0) + (p.beta == 0 ? 0 : p.beta * before.at(i, m, n)), size = 1;
        for (std::int64_t k = 0; k < p.K; ++k) {
          const double term = p.alpha * (p.transpose_a ? a.at(i, k, m) : a.at(i, m, k)) *
                              (p.transpose_b ? b.at(i, n, k) : b.at(i, k, n));
          want += term;
          size += std::abs(term);
        }
        outcome.worst = std::max(outcome.worst, std::abs(c.at(i, m, n) - want) / size);
      }
  return outcome;
}
