// SPDX-License-Identifier: Apache-2.0
// Products on GPUs: cublasLt in the stream of the execution space.
#include <cstdlib>
#include <memory>

#include "kernels/gemm_cublaslt.hpp"
#include "kernels/gemm_library.hpp"
#include "tensor/region.hpp"

namespace dekoder::library {

namespace {

/// What cuBLAS itself takes on Hopper, more gains nothing; and what CublasLt may leave unused at its beginning.
constexpr std::size_t workspace_size = (std::size_t{32} << 20) + 256;

/// Of factors in fp32: others are what they are, and nothing is to be told of TF32.
bool tf32() {
  const char* asked = std::getenv("DEKODER_TF32");  // the launcher has checked it
  return !stored_is_short && asked != nullptr && asked[0] == '1';
}

/// Made by the first product and gone before Kokkos is.
struct Library {
  CublasLt products{tf32()};
  Kokkos::View<std::byte*, MemSpace> workspace{
      Kokkos::view_alloc(Kokkos::WithoutInitializing, "products.workspace"), workspace_size};
};
std::unique_ptr<Library> library_of_process;

Library& library() {
  if (!library_of_process) {
    library_of_process = std::make_unique<Library>();
    Kokkos::push_finalize_hook([] { library_of_process.reset(); });
  }
  return *library_of_process;
}

template <class Element>
constexpr cudaDataType_t type_of = sizeof(Element) == 8   ? CUDA_R_64F
                                   : sizeof(Element) == 4 ? CUDA_R_32F
                                                          : CUDA_R_16BF;

/// Of matrices (rows, columns) or batches (batch, rows, columns).
template <class Factor, class Result>
void multiply_tensors(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const Factor& a, const Factor& b,
                      Real beta, const Result& c, const Stored* bias) {
  constexpr int rows = Result::rank() - 2;
  const auto matrix = [](const auto& x) {
    return LtProduct::Matrix{x.data(), std::int64_t(x.stride(rows)), rows > 0 ? std::int64_t(x.stride(0)) : 0};
  };
  const LtProduct product{.transpose_a = op_a == Op::transpose,
                          .transpose_b = op_b == Op::transpose,
                          .M = c.extent_int(rows),
                          .N = c.extent_int(rows + 1),
                          .K = a.extent_int(op_a == Op::transpose ? rows : rows + 1),
                          .batches = rows > 0 ? c.extent_int(0) : 1,
                          .stored = type_of<Stored>,
                          .result = type_of<typename Result::value_type>,
                          .a = matrix(a),
                          .b = matrix(b),
                          .c = matrix(c),
                          .bias = bias};
  if (product.K == 0) throw ShapeError("gemm: a product over K=0 terms; expected at least 1");
  Library& lt = library();
  const LibraryKernel kernel(exec, gemm_label(op_a, op_b));
  lt.products.multiply(product, alpha, beta, lt.workspace.data(), lt.workspace.size(), exec.cuda_stream());
}

}  // namespace

void multiply(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
              const ConstStoredTensor2& b, Real beta, const StoredTensor2& c, const ConstStoredTensor1& bias) {
  multiply_tensors(exec, op_a, op_b, alpha, a, b, beta, c, bias.size() > 0 ? bias.data() : nullptr);
}

void multiply_master(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
                     const ConstStoredTensor2& b, Real beta, const MasterTensor2& c) {
  multiply_tensors(exec, op_a, op_b, alpha, a, b, beta, c, nullptr);
}

void multiply_batched(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStridedTensor3& a,
                      const ConstStridedTensor3& b, Real beta, const StridedTensor3& c) {
  multiply_tensors(exec, op_a, op_b, alpha, a, b, beta, c, nullptr);
}

void multiply_batched_master(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStridedTensor3& a,
                             const ConstStridedTensor3& b, Real beta, const MasterStridedTensor3& c) {
  multiply_tensors(exec, op_a, op_b, alpha, a, b, beta, c, nullptr);
}

}  // namespace dekoder::library

namespace dekoder {

std::string product_library() {
  return library::library().products.name();
}
std::string product_library_effect() {
  return "";
}
std::size_t product_workspace_bytes() {
  return library::workspace_size;
}
bool products_take_copies() {
  return false;
}

}  // namespace dekoder
