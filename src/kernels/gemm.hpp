// SPDX-License-Identifier: Apache-2.0
// The only seam to matrix multiplication libraries.
#pragma once

#include <string>

#include "tensor/shape_signature.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

enum class Op { none, transpose };

/// c = alpha op(a) op(b) + beta c [+ bias on every row], row-major with unit stride in the last axis; op(a) is
/// (M,K), op(b) is (K,N), c is (M,N), bias is (N) or empty. beta = 0 overwrites c without reading it. Sums are of
/// Real, also of short factors. fp32 on CPUs: oneDNN or KokkosBlas::gemm over OpenBLAS, chosen by shape alone, so
/// that a restart takes the same one; bf16 on CPUs: oneDNN, or where it has no code for the processor the fp32
/// product of widened copies; double: KokkosBlas::gemm; GPUs: cublasLt. Throws ShapeError where the extents do not
/// fit.
void gemm(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, ConstStoredTensor2 a, ConstStoredTensor2 b,
          Real beta, StoredTensor2 c, ConstStoredTensor1 bias = {});

/// The same into masters: gradients of weights. Without bias.
void gemm_master(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, ConstStoredTensor2 a, ConstStoredTensor2 b,
                 Real beta, MasterTensor2 c);

/// c[i] = alpha op(a[i]) op(b[i]) + beta c[i] for each i of the first axis: a, b and c are (B, rows, columns) at
/// any distances, but neighbours along a row are adjacent. Where a or b has distance 0 along the first axis, one
/// matrix serves all. Throws ShapeError.
void gemm_batched(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, ConstStridedTensor3 a, ConstStridedTensor3 b,
                  Real beta, StridedTensor3 c);

/// The same into masters: scores of attention.
void gemm_batched_master(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, ConstStridedTensor3 a,
                         ConstStridedTensor3 b, Real beta, MasterStridedTensor3 c);

/// The name under which profilers see the time of a product (tensor/region.hpp): "dekoder::gemm::nt" for a times b
/// transposed (a layer's forward pass), nn (gradient of its input), tn (of its weight).
const char* gemm_label(Op op_a, Op op_b);

/// The libraries that make the products, with versions and the processor they chose their code for: "oneDNN 3.7.2
/// and OpenBLAS 0.3.29 (SkylakeX)". The bits of a run hold for the same ones only.
std::string product_library();
/// What computes and writes here, for files: "dekoder, OpenMP float, products by ...".
inline std::string program_name() {
  return fmt::format("dekoder, {} {}, products by {}", ExecSpace::name(), precision_name, product_library());
}
/// What having oneDNN, or not having it, does to bits and speed: one sentence, empty on GPUs, in double, and in
/// bf16 where the processor multiplies it.
std::string product_library_effect();

/// Bytes of device memory that the libraries work in, for as long as the process lives; 0 on CPUs.
std::size_t product_workspace_bytes();
/// Whether the factors of each product, and a short result, are copied in Real first (product_library_effect says
/// why), into memory that grows to the largest.
bool products_take_copies();

/// Floating-point operations asked of gemm() by this process so far (2 M N K each).
double gemm_flops();

}  // namespace dekoder
