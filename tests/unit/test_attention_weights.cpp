// SPDX-License-Identifier: Apache-2.0
// The recomputed softmax weights against a plain softmax in double.
#include "kernels/attention/weights.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention/attention.hpp"
#include "support/attention_heads.hpp"
#include "support/host_tensor.hpp"
#include "support/one_thread.hpp"

namespace dekoder::testing {
namespace {

/// Two sequences of random queries, keys and values, and the log-sums that attention kept of them.
struct Case {
  int T, H, D;
  Real scale;
  Tensor4 qkv;  ///< (2,T,3 H,D)
  Tensor4 out;
  Tensor3 lse;

  Case(int T_, int H_, int D_, double magnitude = 1)
      : T(T_),
        H(H_),
        D(D_),
        scale(Real(1 / std::sqrt(double(D)))),
        qkv(random_tensor<Tensor4>(std::uint64_t(T * 1000 + H * 100 + D), 2, T, 3 * H, D)),
        out("out", 2, T, H, D),
        lse("lse", 2, H, T) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), qkv);
    for (std::size_t i = 0; i < host.size(); ++i) host.data()[i] *= Real(magnitude);
    Kokkos::deep_copy(qkv, host);
    causal_attention(ExecSpace(), heads_of(qkv, H, H), scale, Dropout{}, out, lse, attention_scores(2, T, H));
  }

  /// weights(H,n,n) of the first n tokens of sequence b, from memory that held NaN.
  Tensor3 weights(const ExecSpace& exec, int b, int n) const {
    const auto first = Kokkos::make_pair(0, n);
    const auto weights = filled_tensor<Tensor3>(std::numeric_limits<double>::quiet_NaN(), H, n, n);
    const Heads parts = heads_of(qkv, H, H);
    attention_weights(exec, Kokkos::subview(parts.query, b, first, Kokkos::ALL, Kokkos::ALL),
                      Kokkos::subview(parts.key, b, first, Kokkos::ALL, Kokkos::ALL),
                      Kokkos::subview(lse, b, Kokkos::ALL, first), scale, weights);
    exec.fence();
    return weights;
  }

  double dot(const std::vector<double>& x, int b, int h, int t, int s) const {
    const auto at = [&](int token, int part, int d) {
      return x[(((std::size_t(b) * T + token) * 3 + part) * H + h) * D + d];
    };
    double sum = 0;
    for (int d = 0; d < D; ++d) sum += at(t, 0, d) * at(s, 1, d);
    return sum;
  }

  /// Softmax over the keys that each query sees, zeros elsewhere.
  std::vector<double> reference(int b, int n) const {
    const std::vector<double> x = values_of(qkv);
    std::vector<double> result(std::size_t(H) * n * n, 0.0);
    for (int h = 0; h < H; ++h)
      for (int t = 0; t < n; ++t) {
        double* row = &result[(std::size_t(h) * n + t) * n];
        double largest = -std::numeric_limits<double>::infinity(), total = 0;
        for (int s = 0; s <= t; ++s) largest = std::max(largest, row[s] = double(scale) * dot(x, b, h, t, s));
        for (int s = 0; s <= t; ++s) total += row[s] = std::exp(row[s] - largest);
        for (int s = 0; s <= t; ++s) row[s] /= total;
      }
    return result;
  }
};

TEST(AttentionWeights, EqualsSoftmaxInDouble) {
  for (int T : {1, 2, 17, 65, 130})
    for (int H : {1, 3})
      for (int D : {1, 7, 16, 33, 64, 80}) {
        const Case c(T, H, D);
        for (int b = 0; b < 2; ++b)
          EXPECT_TRUE(near(c.weights(ExecSpace(), b, T), c.reference(b, T)))
              << "T=" << T << " H=" << H << " D=" << D << " b=" << b;
      }
}

TEST(AttentionWeights, RowsSumToOneAndNothingLiesAboveTheDiagonal) {
  for (int T : {1, 31, 200}) {
    const Case c(T, 2, 24, 3);  // scores of some ten
    const std::vector<double> weights = values_of(c.weights(ExecSpace(), 1, T));
    for (int row = 0; row < 2 * T; ++row) {
      double sum = 0;
      for (int s = 0; s < T; ++s) {
        const double weight = weights[std::size_t(row) * T + s];
        sum += weight;
        if (s > row % T) {
          ASSERT_EQ(weight, 0.0) << "T=" << T << " head " << row / T << " query " << row % T << " key " << s;
        }
        ASSERT_GE(weight, 0.0);
      }
      ASSERT_NEAR(sum, 1.0, sizeof(Real) == 4 ? 1e-5 : 1e-13) << "T=" << T << " row " << row;
    }
  }
}

TEST(AttentionWeights, TheFirstTokensAloneGiveTheCornerOfTheWholeMap) {
  const int T = 70;
  const Case c(T, 3, 13);
  const std::vector<double> whole = values_of(c.weights(ExecSpace(), 1, T));
  for (int n : {1, 2, 33, 69}) {
    ASSERT_NE(Kokkos::subview(c.lse, 1, Kokkos::ALL, Kokkos::make_pair(0, n)).stride(0), std::size_t(n));
    std::vector<double> corner;
    for (int h = 0; h < 3; ++h)
      for (int t = 0; t < n; ++t)
        for (int s = 0; s < n; ++s) corner.push_back(whole[(std::size_t(h) * T + t) * T + s]);
    EXPECT_TRUE(near(c.weights(ExecSpace(), 1, n), corner, 0.0)) << "n=" << n;
  }
}

TEST(AttentionWeights, OfOneHeadAreThoseAmongAllAndGroupsShareTheirKeys) {
  const int T = 23, H = 4, D = 10;
  const Case c(T, H, D);
  const Heads parts = heads_of(c.qkv, H, H);
  const std::vector<double> all = values_of(c.weights(ExecSpace(), 0, T));
  const auto head_of = [&](const StridedTensor4& x, int first, int count) {
    return Kokkos::subview(x, 0, Kokkos::ALL, Kokkos::make_pair(first, first + count), Kokkos::ALL);
  };
  for (int h = 0; h < H; ++h) {
    const auto one = filled_tensor<Tensor3>(-1, 1, T, T);
    attention_weights(ExecSpace(), head_of(parts.query, h, 1), head_of(parts.key, h, 1),
                      Kokkos::subview(c.lse, 0, Kokkos::make_pair(h, h + 1), Kokkos::ALL), c.scale, one);
    const auto begin = all.begin() + h * T * T;
    EXPECT_TRUE(near(one, std::vector<double>(begin, begin + T * T), 0.0)) << "head " << h;
  }
  // Two heads of keys for four of queries: as if each were there twice.
  const Tensor4 twice("twice", 2, T, 3 * H, D), out("out", 2, T, H, D);
  Kokkos::deep_copy(twice, c.qkv);
  for (int h = 0; h < H; ++h)
    Kokkos::deep_copy(Kokkos::subview(twice, Kokkos::ALL, Kokkos::ALL, H + h, Kokkos::ALL),
                      Kokkos::subview(c.qkv, Kokkos::ALL, Kokkos::ALL, H + h / 2, Kokkos::ALL));
  const Tensor3 lse("lse", 2, H, T), expected("expected", H, T, T), got("got", H, T, T);
  causal_attention(ExecSpace(), heads_of(twice, H, H), c.scale, Dropout{}, out, lse, attention_scores(2, T, H));
  const auto lse_of_one = Kokkos::subview(lse, 0, Kokkos::ALL, Kokkos::ALL);
  attention_weights(ExecSpace(), head_of(heads_of(twice, H, H).query, 0, H),
                    head_of(heads_of(twice, H, H).key, 0, H), lse_of_one, c.scale, expected);
  attention_weights(ExecSpace(), head_of(parts.query, 0, H), head_of(parts.key, 0, 2), lse_of_one, c.scale, got);
  EXPECT_TRUE(identical(got, expected));
  EXPECT_THROW(attention_weights(ExecSpace(), head_of(parts.query, 0, H), head_of(parts.key, 0, 3), lse_of_one,
                                 c.scale, got),
               ShapeError);
}

TEST(AttentionWeights, LargeScoresGiveOneKeyTheWholeWeight) {
  const Case c(40, 1, 16, 30);  // scores of several thousand, exact to about 1e-4
  EXPECT_TRUE(near(c.weights(ExecSpace(), 0, 40), c.reference(0, 40), 2e-3));
}

#if !defined(DEKODER_BACKEND_CUDA)
TEST(AttentionWeights, AnyNumberOfThreadsGivesTheSameBits) {
  const ExecSpace all;
  const auto one = one_thread();
  if (!one) GTEST_SKIP() << "one thread only: nothing to compare";
  ASSERT_EQ(one->concurrency(), 1);
  const Case c(75, 3, 20);
  EXPECT_TRUE(identical(c.weights(all, 0, 75), c.weights(*one, 0, 75)));
}
#endif

TEST(AttentionWeights, ConflictNamesTensorAndAxis) {
  const StridedTensor3 q(Tensor3("q", 5, 2, 4));
  const Tensor2 lse("lse", 2, 6);
  const Tensor3 weights("weights", 2, 5, 5);
  try {
    attention_weights(ExecSpace(), q, q, lse, 1, weights);
    FAIL() << "no error";
  } catch (const ShapeError& error) {
    EXPECT_NE(std::string(error.what()).find("lse is (2,6)"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("conflict at T"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace dekoder::testing
