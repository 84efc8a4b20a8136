// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm.hpp"

#include <algorithm>
#include <atomic>
#include <limits>

#include "kernels/gemm_library.hpp"

namespace dekoder {

namespace {

std::atomic<std::uint64_t> flops_asked{0};

constexpr ShapeSignature gemm_shapes[2][2] = {
    {{"gemm", "a(M,K) b(K,N) -> c(M,N) bias?(N)"}, {"gemm", "a(M,K) b(N,K) -> c(M,N) bias?(N)"}},
    {{"gemm", "a(K,M) b(K,N) -> c(M,N) bias?(N)"}, {"gemm", "a(K,M) b(N,K) -> c(M,N) bias?(N)"}}};
constexpr ShapeSignature batched_shapes[2][2] = {
    {{"gemm_batched", "a(B,M,K) b(B,K,N) -> c(B,M,N)"}, {"gemm_batched", "a(B,M,K) b(B,N,K) -> c(B,M,N)"}},
    {{"gemm_batched", "a(B,K,M) b(B,K,N) -> c(B,M,N)"}, {"gemm_batched", "a(B,K,M) b(B,N,K) -> c(B,M,N)"}}};

/// Rows and columns of a matrix, or of each of a batch, and how far apart rows lie.
template <class Tensor>
void require_int(const char* function, const Tensor& x) {
  constexpr int rows = Tensor::rank() - 2;
  if (std::max({x.extent(rows), x.extent(rows + 1), std::size_t(x.stride(rows))}) >
      std::size_t(std::numeric_limits<int>::max()))
    throw ShapeError(
        fmt::format("{}: a matrix of ({},{}), rows {} apart; expected at most {}, as BLAS counts in int", function,
                    x.extent(rows), x.extent(rows + 1), x.stride(rows), std::numeric_limits<int>::max()));
}

/// Adds to the count; false where there is nothing to compute.
bool count_flops(std::uint64_t products, long M, long N, long K) {
  flops_asked += products * 2 * std::uint64_t(M) * std::uint64_t(N) * std::uint64_t(K);
  return products > 0 && M > 0 && N > 0;
}

template <class Batch>
void require_batch(const Batch& batch) {
  require_int("gemm_batched", batch);
  if (batch.extent(2) > 1 && batch.stride(2) != 1)
    throw ShapeError(
        fmt::format("gemm_batched: the elements of a row lie {} apart; expected neighbours", batch.stride(2)));
}

/// Checks the products of two batches and counts them.
template <class Result>
bool batch_has_work(Op op_a, Op op_b, const ConstStridedTensor3& a, const ConstStridedTensor3& b, const Result& c) {
  const auto extent = batched_shapes[op_a == Op::transpose][op_b == Op::transpose].match(a, b, c);
  require_batch(a);
  require_batch(b);
  require_batch(c);
  return count_flops(std::uint64_t(extent['B']), extent['M'], extent['N'], extent['K']);
}

/// Checks a product of two matrices and counts it.
template <class Result>
bool has_work(Op op_a, Op op_b, const ConstStoredTensor2& a, const ConstStoredTensor2& b, const Result& c,
              const ConstStoredTensor1& bias) {
  const auto extent = gemm_shapes[op_a == Op::transpose][op_b == Op::transpose].match(a, b, c, bias);
  require_int("gemm", a);
  require_int("gemm", b);
  require_int("gemm", c);
  return count_flops(1, extent['M'], extent['N'], extent['K']);
}

}  // namespace

void gemm(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, ConstStoredTensor2 a, ConstStoredTensor2 b,
          Real beta, StoredTensor2 c, ConstStoredTensor1 bias) {
  if (has_work(op_a, op_b, a, b, c, bias)) library::multiply(exec, op_a, op_b, alpha, a, b, beta, c, bias);
}

void gemm_master(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, ConstStoredTensor2 a, ConstStoredTensor2 b,
                 Real beta, MasterTensor2 c) {
  if (has_work(op_a, op_b, a, b, c, {})) library::multiply_master(exec, op_a, op_b, alpha, a, b, beta, c);
}

void gemm_batched(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, ConstStridedTensor3 a, ConstStridedTensor3 b,
                  Real beta, StridedTensor3 c) {
  if (batch_has_work(op_a, op_b, a, b, c)) library::multiply_batched(exec, op_a, op_b, alpha, a, b, beta, c);
}

void gemm_batched_master(const ExecSpace& exec, Op op_a, Op op_b, Real alpha, ConstStridedTensor3 a,
                         ConstStridedTensor3 b, Real beta, MasterStridedTensor3 c) {
  if (batch_has_work(op_a, op_b, a, b, c)) library::multiply_batched_master(exec, op_a, op_b, alpha, a, b, beta, c);
}

const char* gemm_label(Op op_a, Op op_b) {
  constexpr const char* labels[2][2] = {{"dekoder::gemm::nn", "dekoder::gemm::nt"},
                                        {"dekoder::gemm::tn", "dekoder::gemm::tt"}};
  return labels[op_a == Op::transpose][op_b == Op::transpose];
}

double gemm_flops() {
  return static_cast<double>(flops_asked.load());
}

}  // namespace dekoder
