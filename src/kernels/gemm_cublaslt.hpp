// SPDX-License-Identifier: Apache-2.0
// Matrix products by cublasLt. Plain C++ without Kokkos: tested on CPUs against a stand-in for the library.
#pragma once

#include <cublasLt.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace dekoder {

/// c(M,N) = alpha op(a) op(b) + beta c [+ bias on every row], row-major; `row` is the distance of rows, `batch`
/// that of the matrices of a batch (0: one for all). Types are those of a and b, and of c; sums, alpha and beta are
/// fp32, of products of fp64 fp64.
struct LtProduct {
  struct Matrix {
    const void* data;
    std::int64_t row, batch = 0;
  };
  bool transpose_a, transpose_b;
  std::int64_t M, N, K;
  int batches = 1;
  cudaDataType_t stored = CUDA_R_32F, result = CUDA_R_32F;
  Matrix a, b, c;
  const void* bias = nullptr;  ///< (N) of the type of c, or none
};

/// The library's handle and a plan for each form of product: descriptors and the algorithm that the library's
/// heuristic puts first for it. The same form gets the same algorithm in every process with the same library and
/// device, so a restart computes the same bits. No part of a sum is rounded to fewer bits than fp32.
class CublasLt {
 public:
  /// `tf32`: fp32 products by tensor cores, with factors rounded to 10 bits of mantissa. Throws std::runtime_error
  /// with the library's reason, as every function does.
  explicit CublasLt(bool tf32);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  /// Puts the product into the stream. The workspace must be free for it until the stream is done with it; it may
  /// begin anywhere, but the library uses it from the next multiple of 256 bytes on.
  void multiply(const LtProduct& product, double alpha, double beta, void* workspace, std::size_t workspace_bytes,
                cudaStream_t stream);

  std::size_t plans() const { return plans_.size(); }
  /// "cuBLASLt 13.0.2", with "(TF32)" where it is on.
  std::string name() const;

 private:
  /// All that the choice of an algorithm depends on.
  struct Form {
    bool transpose_a, transpose_b;
    std::int64_t M, N, K, a_row, b_row, c_row, a_batch, b_batch, c_batch;
    int batches, stored, result;
    std::uint32_t a_alignment, b_alignment, c_alignment, bias_alignment;  ///< of the bias: 0 for none
    std::size_t workspace_bytes;
    auto operator<=>(const Form&) const = default;
  };
  struct Plan;

  static Form form_of(const LtProduct& product, std::size_t workspace_bytes);
  std::unique_ptr<Plan> make_plan(const Form& form, const void* bias) const;

  cublasLtHandle_t handle_ = nullptr;
  bool tf32_;
  std::map<Form, std::unique_ptr<Plan>> plans_;
};

}  // namespace dekoder
