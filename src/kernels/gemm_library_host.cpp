// SPDX-License-Identifier: Apache-2.0
// Products on CPUs: oneDNN where it is built in and faster, KokkosBlas over the BLAS otherwise.
#include <KokkosBlas3_gemm.hpp>
#include <vector>

#include "kernels/gemm_library.hpp"
#include "kernels/gemm_onednn.hpp"
#include "kernels/rows.hpp"
#include "tensor/region.hpp"

#if defined(DEKODER_KOKKOSKERNELS_HEADERS_ONLY)
// The headers-only package has no compiled BLAS wrappers: these four are the ones that gemm() reaches.
extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*, const float*, const int*,
            const float*, const int*, const float*, float*, const int*);
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*, const double*, const int*,
            const double*, const int*, const double*, double*, const int*);
void sgemv_(const char*, const int*, const int*, const float*, const float*, const int*, const float*, const int*,
            const float*, float*, const int*);
void dgemv_(const char*, const int*, const int*, const double*, const double*, const int*, const double*,
            const int*, const double*, double*, const int*);
}

namespace KokkosBlas::Impl {
template <>
void HostBlas<float>::gemm(const char transa, const char transb, KK_INT m, KK_INT n, KK_INT k, const float alpha,
                           const float* a, KK_INT lda, const float* b, KK_INT ldb, const float beta, float* c,
                           KK_INT ldc) {
  sgemm_(&transa, &transb, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc);
}
template <>
void HostBlas<double>::gemm(const char transa, const char transb, KK_INT m, KK_INT n, KK_INT k, const double alpha,
                            const double* a, KK_INT lda, const double* b, KK_INT ldb, const double beta, double* c,
                            KK_INT ldc) {
  dgemm_(&transa, &transb, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc);
}
template <>
void HostBlas<float>::gemv(const char trans, KK_INT m, KK_INT n, const float alpha, const float* a, KK_INT lda,
                           const float* b, KK_INT ldb, const float beta, float* c, KK_INT ldc) {
  sgemv_(&trans, &m, &n, &alpha, a, &lda, b, &ldb, &beta, c, &ldc);
}
template <>
void HostBlas<double>::gemv(const char trans, KK_INT m, KK_INT n, const double alpha, const double* a, KK_INT lda,
                            const double* b, KK_INT ldb, const double beta, double* c, KK_INT ldc) {
  dgemv_(&trans, &m, &n, &alpha, a, &lda, b, &ldb, &beta, c, &ldc);
}
}  // namespace KokkosBlas::Impl
#endif

// Where the BLAS is OpenBLAS; null elsewhere.
extern "C" {
[[gnu::weak]] char* openblas_get_config();
[[gnu::weak]] char* openblas_get_corename();
}

namespace dekoder::library {

namespace {

/// "OpenBLAS 0.3.29 (SkylakeX)"; its configuration begins with name and version.
std::string blas_name() {
  if (openblas_get_config == nullptr || openblas_get_corename == nullptr)
    return "a BLAS that does not tell its name";
  const std::string config = openblas_get_config();
  const std::size_t version = config.find(' ') + 1;
  return fmt::format("{} ({})", config.substr(0, config.find(' ', version)), openblas_get_corename());
}

/// c = beta c + bias on every row; beta = 0 does not read c.
void scale_and_add_bias(const ExecSpace& exec, const ConstMasterTensor1& bias, Real beta, const MasterTensor2& c) {
  const int N = c.extent_int(1);
  for_each_row(
      "dekoder::gemm::bias", exec, long(c.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long m) {
        Real* row = &c(m, 0);
        const Real* shift = bias.data();
        if (beta == 0)
          team.each(N, [=](int n) { row[n] = shift[n]; });
        else
          team.each(N, [=](int n) { row[n] = beta * row[n] + shift[n]; });
      });
}

/// c(M,1) = alpha a(M,K) b(K,1) + beta c. KokkosBlas::gemm hands this one case to gemv, which takes b and c for
/// vectors without gaps.
void matrix_times_column(const ExecSpace& exec, Real alpha, const ConstMasterTensor2& a,
                         const ConstMasterTensor2& b, Real beta, const MasterTensor2& c) {
  const int K = a.extent_int(1);
  for_each_row(
      "dekoder::gemm::column", exec, long(c.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long m) {
        const Real product = alpha * team.sum(K, [=](int k) { return a(m, k) * b(k, 0); });
        team.once([=] { c(m, 0) = beta == 0 ? product : beta * c(m, 0) + product; });
      });
}

/// The product by oneDNN or the BLAS.
void multiply_real(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstMasterTensor2& a,
                   const ConstMasterTensor2& b, Real beta, const MasterTensor2& c, const ConstMasterTensor1& bias) {
  if (gemm_onednn(exec, op_a, op_b, alpha, a, b, beta, c, bias)) return;
  // The bias first: the product then adds to it, as it would to zeros.
  if (bias.size() > 0) scale_and_add_bias(exec, bias, beta, c);
  const Real kept = bias.size() > 0 ? Real(1) : beta;
  if (c.extent(1) == 1 && op_a == Op::none && op_b == Op::none)
    return matrix_times_column(exec, alpha, a, b, kept, c);
  const char* const names[] = {"N", "T"};
  const LibraryKernel kernel(exec, gemm_label(op_a, op_b));
  KokkosBlas::gemm(exec, names[op_a == Op::transpose], names[op_b == Op::transpose], alpha, a, b, kept, c);
}

/// to(M,N) = from(M,N), in the type of `to`.
template <class From, class To>
void convert(const std::string& label, const ExecSpace& exec, const From& from, const To& to) {
  const int N = to.extent_int(1);
  for_each_row(
      label, exec, long(to.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long m) {
        const auto* source = &from(m, 0);
        auto* target = &to(m, 0);
        team.each(N, [=](int n) { target[n] = source[n]; });
      });
}

/// A tensor of Real of the extents of x, in memory that grows to the largest so far.
template <class Tensor>
MasterTensor2 wide_place(const Tensor& x, std::vector<Real>& memory) {
  if (memory.size() < x.size()) {
    std::vector<Real>().swap(memory);  // not both at once
    memory.resize(x.size());
  }
  return MasterTensor2(memory.data(), x.extent(0), x.extent(1));
}
/// A copy of x in it.
template <class Tensor>
MasterTensor2 widened(const ExecSpace& exec, const Tensor& x, std::vector<Real>& memory) {
  const MasterTensor2 wide = wide_place(x, memory);
  convert("dekoder::gemm::widen", exec, x, wide);
  return wide;
}

/// What the copies of one product lie in; one for all products, whatever the type of their result.
struct Copies {
  std::vector<Real> a, b, c, bias;
};
Copies& copies() {
  static Copies memory;
  return memory;
}

/// The product of short factors by that of their copies in Real.
template <class Result>
void multiply_widened(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
                      const ConstStoredTensor2& b, Real beta, const Result& c, const ConstStoredTensor1& bias) {
  Copies& memory = copies();
  const MasterTensor2 wide_a = widened(exec, a, memory.a), wide_b = widened(exec, b, memory.b);
  ConstMasterTensor1 wide_bias;
  if (bias.size() > 0) {
    const ConstStoredTensor2 row(bias.data(), 1, bias.size());
    wide_bias = ConstMasterTensor1(widened(exec, row, memory.bias).data(), bias.size());
  }
  if constexpr (std::is_same_v<Result, MasterTensor2>) {
    multiply_real(exec, op_a, op_b, alpha, wide_a, wide_b, beta, c, wide_bias);
  } else {
    const MasterTensor2 wide_c = beta == 0 ? wide_place(c, memory.c) : widened(exec, c, memory.c);
    multiply_real(exec, op_a, op_b, alpha, wide_a, wide_b, beta, wide_c, wide_bias);
    convert("dekoder::gemm::round", exec, wide_c, c);
  }
}

template <class Result>
void multiply_matrices(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
                       const ConstStoredTensor2& b, Real beta, const Result& c, const ConstStoredTensor1& bias) {
  if constexpr (!stored_is_short)
    multiply_real(exec, op_a, op_b, alpha, a, b, beta, c, bias);
  else if (!gemm_onednn(exec, op_a, op_b, alpha, a, b, beta, c, bias))
    multiply_widened(exec, op_a, op_b, alpha, a, b, beta, c, bias);
}

/// One matrix of a batch; its rows are neighbours of themselves alone.
template <class Tensor>
Kokkos::View<typename Tensor::value_type**, Layout, MemSpace> matrix_of(const Tensor& batch, std::size_t i) {
  const Kokkos::View<typename Tensor::value_type**, Layout, MemSpace> wide(
      batch.data() + i * batch.stride(0), batch.extent(1), batch.extent(1) > 1 ? batch.stride(1) : batch.extent(2));
  return Kokkos::subview(wide, Kokkos::ALL, Kokkos::make_pair(std::size_t{0}, std::size_t(batch.extent(2))));
}

template <class Result>
void multiply_each(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStridedTensor3& a,
                   const ConstStridedTensor3& b, Real beta, const Result& c) {
  for (std::size_t i = 0; i < c.extent(0); ++i)
    multiply_matrices(exec, op_a, op_b, alpha, matrix_of(a, i), matrix_of(b, i), beta, matrix_of(c, i),
                      ConstStoredTensor1());
}

}  // namespace

void multiply(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
              const ConstStoredTensor2& b, Real beta, const StoredTensor2& c, const ConstStoredTensor1& bias) {
  multiply_matrices(exec, op_a, op_b, alpha, a, b, beta, c, bias);
}

void multiply_master(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStoredTensor2& a,
                     const ConstStoredTensor2& b, Real beta, const MasterTensor2& c) {
  multiply_matrices(exec, op_a, op_b, alpha, a, b, beta, c, {});
}

void multiply_batched(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStridedTensor3& a,
                      const ConstStridedTensor3& b, Real beta, const StridedTensor3& c) {
  multiply_each(exec, op_a, op_b, alpha, a, b, beta, c);
}

void multiply_batched_master(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, const ConstStridedTensor3& a,
                             const ConstStridedTensor3& b, Real beta, const MasterStridedTensor3& c) {
  multiply_each(exec, op_a, op_b, alpha, a, b, beta, c);
}

}  // namespace dekoder::library

namespace dekoder {

std::string product_library() {
  const std::string onednn = onednn_version();
  return onednn.empty() ? library::blas_name() : onednn + " and " + library::blas_name();
}

std::string product_library_effect() {
  if (sizeof(Real) != 4) return "";
  if (stored_is_short)
    return !products_take_copies()
               ? ""
               : "this processor has no faster products of bf16 than of fp32, or dekoder was built without oneDNN: "
                 "they go through copies in fp32, and float is faster";
  return onednn_version().empty()
             ? "built without oneDNN: other last bits than with it, and most products 5 to 15 % slower"
             : "each shape has its library; without oneDNN the last bits would be others and most products 5 to 15 "
               "% slower";
}

std::size_t product_workspace_bytes() {
  return 0;
}
bool products_take_copies() {
  return stored_is_short && !onednn_multiplies_bf16();
}

}  // namespace dekoder
