// SPDX-License-Identifier: Apache-2.0
// Products on GPUs: cublasLt in the stream of the execution space.
#include <cstdlib>
#include <memory>

#include "kernels/gemm_cublaslt.hpp"
#include "kernels/gemm_library.hpp"
#include "tensor/region.hpp"

#if defined(DEKODER_BACKEND_CUDA)

namespace dekoder::library {

namespace {

/// What cuBLAS itself takes on Hopper, more gains nothing; and what CublasLt may leave unused at its beginning.
constexpr std::size_t workspace_size = (std::size_t{32} << 20) + 256;

bool tf32() {
  const char* asked = std::getenv("DEKODER_TF32");  // the launcher has checked it
  return asked != nullptr && asked[0] == '1';
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

static_assert(std::is_same_v<Stored, float>, "another Stored needs its cudaDataType_t");

void multiply(const ExecSpace& exec, Op op_a, Op op_b, const LtProduct& product, Real alpha, Real beta) {
  if (product.K == 0) throw ShapeError("gemm: a product over K=0 terms; expected at least 1");
  Library& lt = library();
  const LibraryKernel kernel(exec, gemm_label(op_a, op_b));
  lt.products.multiply(product, alpha, beta, lt.workspace.data(), lt.workspace.size(), exec.cuda_stream());
}

}  // namespace

void multiply(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
              const ConstStoredTensor2& b, Real beta, const StoredTensor2& c, const ConstStoredTensor1& bias) {
  const auto matrix = [](const ConstStoredTensor2& x) {
    return LtProduct::Matrix{x.data(), std::int64_t(x.stride(0))};
  };
  multiply(exec, op_a, op_b,
           {.transpose_a = op_a == Op::transpose,
            .transpose_b = op_b == Op::transpose,
            .M = c.extent_int(0),
            .N = c.extent_int(1),
            .K = a.extent_int(op_a == Op::transpose ? 0 : 1),
            .a = matrix(a),
            .b = matrix(b),
            .c = matrix(c),
            .bias = bias.size() > 0 ? bias.data() : nullptr},
           alpha, beta);
}

void multiply_batched(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStridedTensor3& a,
                      const ConstStridedTensor3& b, Real beta, const StridedTensor3& c) {
  const auto batch = [](const ConstStridedTensor3& x) {
    return LtProduct::Matrix{x.data(), std::int64_t(x.stride(1)), std::int64_t(x.stride(0))};
  };
  multiply(exec, op_a, op_b,
           {.transpose_a = op_a == Op::transpose,
            .transpose_b = op_b == Op::transpose,
            .M = c.extent_int(1),
            .N = c.extent_int(2),
            .K = a.extent_int(op_a == Op::transpose ? 1 : 2),
            .batches = c.extent_int(0),
            .a = batch(a),
            .b = batch(b),
            .c = batch(c)},
           alpha, beta);
}

std::string name() {
  return library().products.name();
}
std::string effect() {
  return "";
}
std::size_t workspace_bytes() {
  return workspace_size;
}

}  // namespace dekoder::library

#endif
