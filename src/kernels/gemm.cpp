// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm.hpp"

#include <KokkosBlas3_gemm.hpp>
#include <algorithm>
#include <atomic>
#include <limits>

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

#if !defined(DEKODER_BACKEND_CUDA)
// Where the BLAS is OpenBLAS; null elsewhere.
extern "C" {
[[gnu::weak]] char* openblas_get_config();
[[gnu::weak]] char* openblas_get_corename();
}
#endif

namespace dekoder {

namespace {

#if defined(DEKODER_BACKEND_CUDA)
std::string blas_name() {
  return fmt::format("the BLAS of Kokkos Kernels {}", KOKKOSKERNELS_VERSION);
}
#else
/// "OpenBLAS 0.3.29 (SkylakeX)"; its configuration begins with name and version.
std::string blas_name() {
  if (openblas_get_config == nullptr || openblas_get_corename == nullptr)
    return "a BLAS that does not tell its name";
  const std::string config = openblas_get_config();
  const std::size_t version = config.find(' ') + 1;
  return fmt::format("{} ({})", config.substr(0, config.find(' ', version)), openblas_get_corename());
}
#endif

std::atomic<std::uint64_t> flops_asked{0};

constexpr ShapeSignature gemm_shapes[2][2] = {
    {{"gemm", "a(M,K) b(K,N) -> c(M,N) bias?(N)"}, {"gemm", "a(M,K) b(N,K) -> c(M,N) bias?(N)"}},
    {{"gemm", "a(K,M) b(K,N) -> c(M,N) bias?(N)"}, {"gemm", "a(K,M) b(N,K) -> c(M,N) bias?(N)"}}};

/// c = beta c + bias on every row; beta = 0 does not read c.
void scale_and_add_bias(const ExecSpace& exec, const ConstStoredTensor1& bias, Real beta, const StoredTensor2& c) {
  const int N = c.extent_int(1);
  for_each_row(
      "dekoder::gemm::bias", exec, long(c.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long m) {
        Stored* row = &c(m, 0);
        const Stored* shift = bias.data();
        if (beta == 0)
          team.each(N, [=](int n) { row[n] = shift[n]; });
        else
          team.each(N, [=](int n) { row[n] = beta * row[n] + shift[n]; });
      });
}

/// c(M,1) = alpha a(M,K) b(K,1) + beta c. KokkosBlas::gemm hands this one case to gemv, which takes b and c for
/// vectors without gaps.
void matrix_times_column(const ExecSpace& exec, Real alpha, const ConstStoredTensor2& a,
                         const ConstStoredTensor2& b, Real beta, const StoredTensor2& c) {
  const int K = a.extent_int(1);
  for_each_row(
      "dekoder::gemm::column", exec, long(c.extent(0)), KOKKOS_LAMBDA(const RowTeam& team, long m) {
        const Real product = alpha * team.sum(K, [=](int k) { return a(m, k) * b(k, 0); });
        team.once([=] { c(m, 0) = beta == 0 ? product : beta * c(m, 0) + product; });
      });
}

}  // namespace

void gemm(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, ConstStoredTensor2 a, ConstStoredTensor2 b,
          Real beta, StoredTensor2 c, ConstStoredTensor1 bias) {
  const bool transpose_a = op_a == Op::transpose, transpose_b = op_b == Op::transpose;
  const auto extent = gemm_shapes[transpose_a][transpose_b].match(a, b, c, bias);
  const long M = extent['M'], N = extent['N'], K = extent['K'];
  for (const ConstStoredTensor2& matrix : {a, b, ConstStoredTensor2(c)})
    if (std::max({matrix.extent(0), matrix.extent(1), std::size_t(matrix.stride(0))}) >
        std::size_t(std::numeric_limits<int>::max()))
      throw ShapeError(
          fmt::format("gemm: a matrix of ({},{}), rows {} apart; expected at most {}, as BLAS counts in int",
                      matrix.extent(0), matrix.extent(1), matrix.stride(0), std::numeric_limits<int>::max()));
  flops_asked += std::uint64_t(2) * std::uint64_t(M) * std::uint64_t(N) * std::uint64_t(K);
  if (gemm_onednn(exec, op_a, op_b, alpha, a, b, beta, c, bias)) return;
  // The bias first: the product then adds to it, as it would to zeros.
  if (bias.size() > 0) scale_and_add_bias(exec, bias, beta, c);
  const Real kept = bias.size() > 0 ? Real(1) : beta;
  if (N == 1 && !transpose_a && !transpose_b) return matrix_times_column(exec, alpha, a, b, kept, c);
  const char* const names[] = {"N", "T"};
  const LibraryKernel kernel(exec, gemm_label(op_a, op_b));
  KokkosBlas::gemm(exec, names[transpose_a], names[transpose_b], alpha, a, b, kept, c);
}

static_assert(std::is_same_v<Stored, Master>, "another Stored needs products with results of either type");
void gemm_master(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, ConstStoredTensor2 a, ConstStoredTensor2 b,
                 Real beta, MasterTensor2 c) {
  gemm(exec, op_a, op_b, alpha, a, b, beta, c);
}

const char* gemm_label(Op op_a, Op op_b) {
  constexpr const char* labels[2][2] = {{"dekoder::gemm::nn", "dekoder::gemm::nt"},
                                        {"dekoder::gemm::tn", "dekoder::gemm::tt"}};
  return labels[op_a == Op::transpose][op_b == Op::transpose];
}

std::string product_library() {
  const std::string onednn = onednn_version();
  return onednn.empty() ? blas_name() : onednn + " and " + blas_name();
}

std::string product_library_effect() {
  if (!device_is_host || sizeof(Real) != 4) return "";
  return onednn_version().empty()
             ? "built without oneDNN: other last bits than with it, and most products 5 to 15 % slower"
             : "each shape has its library; without oneDNN the last bits would be others and most products 5 to 15 "
               "% slower";
}

double gemm_flops() {
  return static_cast<double>(flops_asked.load());
}

}  // namespace dekoder
