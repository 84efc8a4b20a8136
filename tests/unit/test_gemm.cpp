// SPDX-License-Identifier: Apache-2.0
// gemm() against plain loops in double, in every combination of transposes, beta, bias and row distances.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/gemm.hpp"
#include "tensor/random_stream.hpp"

namespace dekoder::testing {
namespace {

struct Shape {
  int M, N, K;
};

void PrintTo(const Shape& s, std::ostream* out) {
  *out << "M" << s.M << " N" << s.N << " K" << s.K;
}

/// (rows, columns) as the first columns of a wider matrix, `gap` more; everything outside is NaN.
template <class Matrix = StoredTensor2>
Matrix matrix(int rows, int columns, int gap, std::uint64_t seed) {
  const Matrix wide("wide", rows, columns + gap);
  const auto host = Kokkos::create_mirror_view(wide);
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < columns + gap; ++j)
      host(i, j) = j < columns ? Real(RandomStream(seed, 1).normal(std::uint64_t(i) * columns + j))
                               : std::numeric_limits<Real>::quiet_NaN();
  Kokkos::deep_copy(wide, host);
  return Kokkos::subview(wide, Kokkos::ALL, Kokkos::make_pair(0, columns));
}

template <class Matrix>
auto on_host(const Matrix& x) {
  const Matrix packed("packed", x.extent(0), x.extent(1));
  Kokkos::deep_copy(packed, x);
  Kokkos::View<typename Matrix::value_type**, Layout, Kokkos::HostSpace> host("host", x.extent(0), x.extent(1));
  Kokkos::deep_copy(host, packed);
  return host;
}

struct Options {
  bool transpose_a, transpose_b, with_bias;
  Real alpha, beta;
  int gap;
};

std::string text(const Options& o) {
  return std::string(o.transpose_a ? "T" : "N") + (o.transpose_b ? "T" : "N") + " alpha " +
         std::to_string(o.alpha) + " beta " + std::to_string(o.beta) + (o.with_bias ? " bias" : "") + " gap " +
         std::to_string(o.gap);
}

/// Results of Stored, or of Master without a bias.
template <class Result>
void check(const Shape& s, const Options& o) {
  const StoredTensor2 a = matrix(o.transpose_a ? s.K : s.M, o.transpose_a ? s.M : s.K, o.gap, 1);
  const StoredTensor2 b = matrix(o.transpose_b ? s.N : s.K, o.transpose_b ? s.K : s.N, o.gap, 2);
  const Result c = matrix<Result>(s.M, s.N, o.gap, 3);
  const StoredTensor2 bias_row = matrix(1, s.N, 0, 4);
  const auto a_host = on_host(a), b_host = on_host(b), bias_host = on_host(bias_row);
  const auto before = on_host(c);
  // beta = 0 must not read c.
  using Element = typename Result::value_type;
  if (o.beta == 0) Kokkos::deep_copy(c, Element(std::numeric_limits<Real>::quiet_NaN()));
  const ExecSpace exec;
  const Op op_a = o.transpose_a ? Op::transpose : Op::none, op_b = o.transpose_b ? Op::transpose : Op::none;
  if constexpr (std::is_same_v<Result, StoredTensor2>)
    gemm(exec, op_a, op_b, o.alpha, a, b, o.beta, c,
         o.with_bias ? ConstStoredTensor1(bias_row.data(), std::size_t(s.N)) : ConstStoredTensor1());
  else
    gemm_master(exec, op_a, op_b, o.alpha, a, b, o.beta, c);
  exec.fence();
  const auto got = on_host(c);
  const double tolerance = (sizeof(Real) == 4 ? 1e-6 : 1e-15) * (4 + s.K);
  const double rounding = sizeof(Element) == 2 ? 0x1p-8 : 0;
  for (int m = 0; m < s.M; ++m)
    for (int n = 0; n < s.N; ++n) {
      double want = 0;
      for (int k = 0; k < s.K; ++k)
        want += double(o.transpose_a ? a_host(k, m) : a_host(m, k)) *
                double(o.transpose_b ? b_host(n, k) : b_host(k, n));
      want = double(o.alpha) * want + (o.beta == 0 ? 0 : double(o.beta) * before(m, n)) +
             (o.with_bias ? double(bias_host(0, n)) : 0);
      ASSERT_NEAR(got(m, n), want, tolerance + rounding * std::abs(want))
          << "c[" << m << "," << n << "] of " << text(o);
    }
}

class Gemm : public ::testing::TestWithParam<Shape> {};

TEST_P(Gemm, EqualsPlainLoops) {
  for (bool transpose_a : {false, true})
    for (bool transpose_b : {false, true})
      for (bool with_bias : {false, true})
        for (Real beta : {Real(0), Real(1), Real(0.5)})
          for (int gap : {0, 3}) {
            check<StoredTensor2>(GetParam(), {transpose_a, transpose_b, with_bias, 1, beta, gap});
            if (stored_is_short && !with_bias)
              check<MasterTensor2>(GetParam(), {transpose_a, transpose_b, false, 1, beta, gap});
          }
  check<StoredTensor2>(GetParam(), {false, true, true, Real(-2), 0, 1});
  check<StoredTensor2>(GetParam(), {true, false, false, Real(0.25), 1, 0});
}

// N = 1024 and K = 16400 are read by the other library of the two on a CPU.
INSTANTIATE_TEST_SUITE_P(Shapes, Gemm,
                         ::testing::Values(Shape{1, 1, 1}, Shape{1, 7, 5}, Shape{3, 1, 4}, Shape{5, 9, 1},
                                           Shape{17, 33, 29}, Shape{64, 48, 80}, Shape{2, 1024, 3},
                                           Shape{2, 3, 16400}, Shape{1, 130, 64}));

/// (batch, rows, columns) within (rows, batch, columns + 2), as heads lie within tokens; everything outside is NaN.
struct Batch {
  StoredTensor2 memory;
  StridedTensor3 view;

  Batch(int batches, int rows, int columns, std::uint64_t seed)
      : memory(matrix(rows * batches, columns, 2, seed)),
        view(memory.data(),
             Kokkos::LayoutStride(std::size_t(batches), std::size_t(columns) + 2, std::size_t(rows),
                                  std::size_t(batches) * (std::size_t(columns) + 2), std::size_t(columns), 1)) {}
  auto on_host() const {
    const StoredTensor3 packed("packed", view.extent(0), view.extent(1), view.extent(2));
    Kokkos::deep_copy(packed, view);
    return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), packed);
  }
};

TEST(GemmBatched, EveryMatrixIsTheProductOfItsOwn) {
  const int B = 3, M = 5, N = 7, K = 4;
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      for (const bool one_b : {false, true})
        for (const Real beta : {Real(0), Real(0.5)}) {
          const Batch a(B, transpose_a ? K : M, transpose_a ? M : K, 1), c(B, M, N, 3);
          Batch b(B, transpose_b ? N : K, transpose_b ? K : N, 2);
          if (one_b)
            b.view = StridedTensor3(
                b.view.data(), Kokkos::LayoutStride(B, 0, b.view.extent(1), b.view.stride(1), b.view.extent(2), 1));
          const auto x = a.on_host(), y = b.on_host(), before = c.on_host();
          const double flops = gemm_flops();
          gemm_batched(ExecSpace(), transpose_a ? Op::transpose : Op::none, transpose_b ? Op::transpose : Op::none,
                       Real(0.25), a.view, b.view, beta, c.view);
          EXPECT_EQ(gemm_flops() - flops, 2.0 * B * M * N * K);
          const auto got = c.on_host();
          for (int i = 0; i < B; ++i)
            for (int m = 0; m < M; ++m)
              for (int n = 0; n < N; ++n) {
                double want = beta == 0 ? 0 : beta * double(before(i, m, n));
                for (int k = 0; k < K; ++k)
                  want += 0.25 * double(transpose_a ? x(i, k, m) : x(i, m, k)) *
                          double(transpose_b ? y(i, n, k) : y(i, k, n));
                EXPECT_NEAR(double(got(i, m, n)), want, 1e-5 + 0x1p-8 * std::abs(want) * stored_is_short)
                    << i << " " << m << " " << n;
              }
        }
}

TEST(GemmBatched, RefusesWhatDoesNotFit) {
  const auto call = [](const Batch& a, const Batch& b, const Batch& c) {
    gemm_batched(ExecSpace(), Op::none, Op::none, 1, a.view, b.view, 0, c.view);
  };
  EXPECT_THROW(call(Batch(2, 3, 4, 1), Batch(3, 4, 5, 2), Batch(2, 3, 5, 3)), ShapeError);
  EXPECT_THROW(call(Batch(2, 3, 4, 1), Batch(2, 5, 5, 2), Batch(2, 3, 5, 3)), ShapeError);
  Batch apart(1, 3, 8, 1);
  apart.view = StridedTensor3(apart.view.data(), Kokkos::LayoutStride(1, 1, 3, 10, 4, 2));
  EXPECT_THROW(call(apart, Batch(1, 4, 5, 2), Batch(1, 3, 5, 3)), ShapeError);
}

/// What is beyond the largest number is Inf, a NaN stays in its row and column, numbers too small for an exponent
/// of their own count for what they are or for nothing.
TEST(GemmExtremes, OverflowNanAndSubnormals) {
  constexpr int M = 5, N = 9, K = 40;
  const StoredTensor2 a("a", M, K), b("b", K, N), c("c", M, N);
  const auto a_host = Kokkos::create_mirror_view(a), b_host = Kokkos::create_mirror_view(b);
  Kokkos::deep_copy(b_host, Stored(Real(2)));
  const Real rows[M] = {1, std::numeric_limits<Real>::max() / 4, 3, std::numeric_limits<Real>::denorm_min() * 1e5f,
                        0};
  for (int m = 0; m < M; ++m)
    for (int k = 0; k < K; ++k) a_host(m, k) = rows[m];
  a_host(2, 7) = std::numeric_limits<Real>::quiet_NaN();
  b_host(7, 4) = Stored(std::numeric_limits<Real>::infinity());
  Kokkos::deep_copy(a, a_host);
  Kokkos::deep_copy(b, b_host);
  const ExecSpace exec;
  gemm(exec, Op::none, Op::none, 1, a, b, 0, c);
  exec.fence();
  const auto got = on_host(c);
  for (int n = 0; n < N; ++n) {
    EXPECT_EQ(Real(got(0, n)), n == 4 ? std::numeric_limits<Real>::infinity() : Real(2 * K));
    EXPECT_EQ(Real(got(1, n)), std::numeric_limits<Real>::infinity());
    EXPECT_TRUE(std::isnan(Real(got(2, n))));
    if (n != 4) {
      EXPECT_GE(Real(got(3, n)), Real(0));
      EXPECT_LE(Real(got(3, n)), Real(2.1 * K * double(a_host(3, 0))));
    }
    EXPECT_TRUE(n == 4 ? std::isnan(Real(got(4, n))) : Real(got(4, n)) == 0);
  }
}

TEST(GemmRepeats, SameBitsEveryTime) {
  for (Shape s : {Shape{130, 96, 70}, Shape{33, 1024, 65}}) {
    const StoredTensor2 a = matrix(s.M, s.K, 0, 1), b = matrix(s.K, s.N, 0, 2), c("c", s.M, s.N);
    const ExecSpace exec;
    gemm(exec, Op::none, Op::none, 1, a, b, 0, c);
    const auto first = on_host(c);
    gemm(exec, Op::none, Op::none, 1, a, b, 0, c);
    const auto second = on_host(c);
    for (int m = 0; m < s.M; ++m)
      for (int n = 0; n < s.N; ++n) ASSERT_EQ(first(m, n), second(m, n)) << "c[" << m << "," << n << "]";
  }
}

#if !defined(DEKODER_BACKEND_CUDA)
TEST(GemmLibrary, IsNamedWithItsVersion) {
  const std::regex form(
      R"((oneDNN \d+\.\d+\.\d+ \(ISA 0x[0-9a-f]+\) and )?(OpenBLAS \d+\.\d+\S* \(\w+\)|a BLAS that does not tell its name))");
  EXPECT_TRUE(std::regex_match(product_library(), form)) << product_library();
  const bool onednn = product_library().starts_with("oneDNN");
  if (stored_is_short)
    EXPECT_TRUE(onednn || product_library_effect().find("float is faster") != std::string::npos);
  else
    EXPECT_EQ(product_library_effect().starts_with("built without oneDNN"), !onednn) << product_library_effect();
}
#endif

TEST(GemmCount, AddsTwoMNK) {
  const double before = gemm_flops();
  gemm(ExecSpace(), Op::none, Op::none, 1, matrix(3, 5, 0, 1), matrix(5, 7, 0, 2), 0, matrix(3, 7, 0, 3));
  EXPECT_EQ(gemm_flops() - before, 2.0 * 3 * 5 * 7);
}

std::vector<std::string>* kernels_seen = nullptr;
int kernels_ended = 0;

// The first product is OpenBLAS' on a CPU, the second oneDNN's where it is there.
TEST(GemmProfile, EveryProductIsOneKernelOfItsName) {
  using namespace Kokkos::Tools::Experimental;
  const StoredTensor2 a("a", 4, 6), b("b", 6, 1024), c("c", 4, 1024), b_narrow("b", 6, 5), c_narrow("c", 4, 5);
  std::vector<std::string> seen;
  kernels_seen = &seen;
  kernels_ended = 0;
  set_begin_parallel_for_callback([](const char* name, std::uint32_t, std::uint64_t* id) {
    const std::string_view kernel = name;  // where bf16 is widened first, that is told, too
    const bool copies = kernel == "dekoder::gemm::widen" || kernel == "dekoder::gemm::round";
    if (!copies) kernels_seen->push_back(name);
    *id = copies ? 0 : 7;
  });
  set_end_parallel_for_callback([](std::uint64_t id) { kernels_ended += id == 7; });
  gemm(ExecSpace(), Op::none, Op::none, 1, a, b, 0, c);
  gemm(ExecSpace(), Op::none, Op::none, 1, a, b_narrow, 0, c_narrow);
  gemm(ExecSpace(), Op::none, Op::transpose, 1, c, b, 0, StoredTensor2(b_narrow.data(), 4, 6));
  gemm(ExecSpace(), Op::transpose, Op::none, 1, a, c, 1, b);
  gemm(ExecSpace(), Op::transpose, Op::transpose, 1, b_narrow, a, 0, StoredTensor2(c.data(), 5, 4));
  set_begin_parallel_for_callback(nullptr);
  set_end_parallel_for_callback(nullptr);
  EXPECT_EQ(seen, (std::vector<std::string>{"dekoder::gemm::nn", "dekoder::gemm::nn", "dekoder::gemm::nt",
                                            "dekoder::gemm::tn", "dekoder::gemm::tt"}));
  EXPECT_EQ(kernels_ended, 5);
}

TEST(GemmShapes, ConflictNamesTensorAndAxis) {
  const StoredTensor2 a("a", 3, 5), b("b", 7, 5), c("c", 3, 7);
  gemm(ExecSpace(), Op::none, Op::transpose, 1, a, b, 0, c);
  try {
    gemm(ExecSpace(), Op::none, Op::none, 1, a, b, 0, c);
    FAIL() << "no ShapeError";
  } catch (const ShapeError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("b is (7,5)"), std::string::npos) << message;
    EXPECT_NE(message.find("conflict at K"), std::string::npos) << message;
  }
  EXPECT_THROW(gemm(ExecSpace(), Op::none, Op::transpose, 1, a, b, 0, c, ConstStoredTensor1(a.data(), 6)),
               ShapeError);
}

// Nothing is read: extents and strides are refused before.
TEST(GemmShapes, ExtentsAndStridesBeyondIntAreErrors) {
  const StoredTensor2 one("one", 1, 1);
  const std::size_t beyond = std::size_t(1) << 31;
  const StoredTensor2 tall(one.data(), beyond, 1), wide(one.data(), 1, beyond);
  EXPECT_THROW(gemm(ExecSpace(), Op::none, Op::none, 1, tall, one, 0, tall), ShapeError);
  EXPECT_THROW(gemm(ExecSpace(), Op::none, Op::none, 1, one, wide, 0, wide), ShapeError);
  EXPECT_THROW(gemm(ExecSpace(), Op::none, Op::none, 1, wide, tall, 0, one), ShapeError);
  EXPECT_THROW(gemm(ExecSpace(), Op::none, Op::transpose, 1, one, tall, 0, wide), ShapeError);
}

// Rows of a batch may lie anywhere, so that only their length says that BLAS cannot count it.
TEST(GemmShapes, RowsBeyondIntAreErrorsHoweverNearTheyLie) {
  const StoredTensor2 one("one", 1, 1);
  const auto matrix_of = [&](std::size_t rows, std::size_t columns) {
    return StridedTensor3(one.data(), Kokkos::LayoutStride(1, 0, rows, 1, columns, 1));
  };
  const auto multiply = [&](std::size_t columns) {
    gemm_batched(ExecSpace(), Op::none, Op::none, 1, matrix_of(0, 1), matrix_of(1, columns), 0,
                 matrix_of(0, columns));
  };
  multiply((std::size_t(1) << 31) - 1);  // no row of results: nothing is read
  EXPECT_THROW(multiply(std::size_t(1) << 31), ShapeError);
}

}  // namespace
}  // namespace dekoder::testing
