// SPDX-License-Identifier: Apache-2.0
// Causal attention of the host and of any device against plain loops in double.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention/attention.hpp"
#include "kernels/rows.hpp"
#include "support/attention_heads.hpp"
#include "support/host_tensor.hpp"
#if !defined(DEKODER_BACKEND_CUDA)
#include "kernels/attention/tile_host.hpp"
#include "support/one_thread.hpp"
#endif

namespace dekoder::testing {
namespace {

struct Shape {
  int B, T, H, D;
  int G = H;       ///< heads of keys and values
  int window = T;  ///< keys that a query sees
};

void PrintTo(const Shape& s, std::ostream* out) {
  *out << "B" << s.B << " T" << s.T << " H" << s.H << " G" << s.G << " D" << s.D << " window " << s.window;
}

/// Inputs and outputs of one call, on the device and as the reference sees them.
struct Case {
  Shape shape;
  AttentionForm form;
  Dropout dropout;
  StoredTensor4 qkv, grad_qkv;  ///< (B,T,H + 2 G,D)
  StoredTensor4 out, grad_out;
  MasterTensor3 lse, delta;
  MasterTensor1 scores;
  std::vector<double> want_out, want_lse, want_grad;

  Case(Shape s, double magnitude, Real rate)
      : shape(s),
        form(Real(1 / std::sqrt(double(s.D))), s.window),
        dropout{rate, RandomStream(3, site_of("test.attention"), 8), 41},
        qkv("qkv", s.B, s.T, s.H + 2 * s.G, s.D),
        grad_qkv("grad_qkv", s.B, s.T, s.H + 2 * s.G, s.D),
        out("out", s.B, s.T, s.H, s.D),
        grad_out("grad_out", s.B, s.T, s.H, s.D),
        lse("lse", s.B, s.H, s.T),
        delta("delta", s.B, s.H, s.T),
        scores(attention_scores(s.B, s.T, s.G)) {
    const RandomStream numbers(7, site_of("test.numbers"));
    fill(qkv, numbers.child(1), magnitude);
    fill(grad_out, numbers.child(2), 1);
  }

  template <class Tensor>
  static void fill(const Tensor& x, const RandomStream& stream, double magnitude) {
    const auto host = Kokkos::create_mirror_view(x);
    for (std::size_t i = 0; i < x.size(); ++i) host.data()[i] = Real(magnitude * stream.normal(i));
    Kokkos::deep_copy(x, host);
  }

  /// Every output holds NaN before a call: nothing may be read or left over.
  void poison() const {
    const Real nan = std::numeric_limits<Real>::quiet_NaN();
    Kokkos::deep_copy(out, Stored(nan));
    Kokkos::deep_copy(lse, nan);
    Kokkos::deep_copy(delta, nan);
    Kokkos::deep_copy(grad_qkv, Stored(nan));
  }

  Heads parts() const { return heads_of(qkv, shape.H, shape.G); }
  Heads grad_parts() const { return heads_of(grad_qkv, shape.H, shape.G); }
  /// Place of an element in qkv; part 0, 1, 2 are queries, keys, values.
  std::size_t at(int b, int t, int part, int h, int d) const {
    const int head = part == 0 ? h : shape.H + (part - 1) * shape.G + h;
    return ((std::size_t(b) * shape.T + t) * (shape.H + 2 * shape.G) + head) * shape.D + d;
  }
  void reference();
  void reference_head(const std::vector<double>& x, const std::vector<double>& g, int b, int h);
};

std::vector<double> doubles(const auto& x) {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), x);
  return std::vector<double>(host.data(), host.data() + host.size());
}

void Case::reference() {
  const auto x = doubles(qkv), g = doubles(grad_out);
  want_out.assign(out.size(), 0);
  want_lse.assign(lse.size(), 0);
  want_grad.assign(qkv.size(), 0);
  for (int b = 0; b < shape.B; ++b)
    for (int h = 0; h < shape.H; ++h) reference_head(x, g, b, h);
}

void Case::reference_head(const std::vector<double>& x, const std::vector<double>& g, int b, int h) {
  const auto [B, T, H, D, G, window] = shape;
  const int g_of_h = h / (H / G);
  const RandomStream stream = dropout.sample(b).child(std::uint64_t(h));
  for (int t = 0; t < T; ++t) {
    std::vector<double> weight(t + 1), grad_weight(t + 1), factor(t + 1, 1.0);
    double largest = -std::numeric_limits<double>::infinity(), total = 0;
    for (int s = std::max(0, t - window + 1); s <= t; ++s) {
      for (int d = 0; d < D; ++d)
        weight[s] += double(form.scale) * x[at(b, t, 0, h, d)] * x[at(b, s, 1, g_of_h, d)];
      largest = std::max(largest, weight[s]);
      if (dropout.active()) factor[s] = dropout.factor(stream, std::uint64_t(t) * T + s);
    }
    for (int s = std::max(0, t - window + 1); s <= t; ++s) total += weight[s] = std::exp(weight[s] - largest);
    want_lse[(std::size_t(b) * H + h) * T + t] = largest + std::log(total);
    double delta_t = 0;
    const std::size_t row = ((std::size_t(b) * T + t) * H + h) * D;
    for (int s = std::max(0, t - window + 1); s <= t; ++s) {
      weight[s] /= total;
      for (int d = 0; d < D; ++d) {
        want_out[row + d] += weight[s] * factor[s] * x[at(b, s, 2, g_of_h, d)];
        want_grad[at(b, s, 2, g_of_h, d)] += weight[s] * factor[s] * g[row + d];
        grad_weight[s] += factor[s] * g[row + d] * x[at(b, s, 2, g_of_h, d)];
      }
      delta_t += weight[s] * grad_weight[s];
    }
    for (int s = std::max(0, t - window + 1); s <= t; ++s) {
      const double grad_score = double(form.scale) * weight[s] * (grad_weight[s] - delta_t);
      for (int d = 0; d < D; ++d) {
        want_grad[at(b, t, 0, h, d)] += grad_score * x[at(b, s, 1, g_of_h, d)];
        want_grad[at(b, s, 1, g_of_h, d)] += grad_score * x[at(b, t, 0, h, d)];
      }
    }
  }
}

/// Equal within `tolerance` of the largest magnitude; names the first element that is not.
::testing::AssertionResult near(const char* name, const auto& tensor, const std::vector<double>& want,
                                double tolerance) {
  const auto got = doubles(tensor);
  double largest = 1;
  for (double w : want) largest = std::max(largest, std::abs(w));
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::abs(got[i] - want[i]) <= tolerance * largest) continue;
    std::size_t rest = i;
    std::string index;
    for (int axis = int(tensor.rank()) - 1; axis >= 0; --axis) {
      index = std::to_string(rest % tensor.extent(axis)) + (index.empty() ? "" : ",") + index;
      rest /= tensor.extent(axis);
    }
    return ::testing::AssertionFailure() << name << "[" << index << "] is " << got[i] << ", expected " << want[i]
                                         << " within " << tolerance * largest;
  }
  return ::testing::AssertionSuccess();
}

/// Equal bit for bit; names the first element that is not.
::testing::AssertionResult same(const char* name, const auto& tensor, const std::vector<double>& want) {
  const auto got = doubles(tensor);
  for (std::size_t i = 0; i < got.size(); ++i)
    if (got[i] != want[i])
      return ::testing::AssertionFailure()
             << name << " element " << i << " is " << got[i] << ", before " << want[i];
  return ::testing::AssertionSuccess();
}

/// The elements without gaps.
StoredTensor4 clone_of(const StridedTensor4& x) {
  const StoredTensor4 copy("copy", x.extent(0), x.extent(1), x.extent(2), x.extent(3));
  Kokkos::deep_copy(copy, x);
  return copy;
}

void run(const ExecSpace& exec, const Case& c) {
  c.poison();
  causal_attention(exec, c.parts(), c.form, c.dropout, c.out, c.lse, c.scores);
  causal_attention_backward(exec, c.parts(), c.out, c.grad_out, c.lse, c.form, c.dropout, c.delta, c.grad_parts(),
                            c.scores);
  exec.fence();
}

/// In bf16 weights, gradients of scores and results are rounded, and out enters the gradients rounded; each of
/// these errors is at most stored_rounding of the largest value that enters a sum, and one may be several times the
/// largest sum.
void expect_reference(const Case& c) {
  EXPECT_TRUE(near("out", c.out, c.want_out, 5e-6 + 3 * stored_rounding));
  EXPECT_TRUE(near("lse", c.lse, c.want_lse, 2e-6));
  EXPECT_TRUE(near("grad_qkv", c.grad_qkv, c.want_grad, 2e-5 + 6 * stored_rounding));
}

class Attention : public ::testing::TestWithParam<Shape> {};

TEST_P(Attention, EqualsPlainLoops) {
  for (Real rate : {Real(0), Real(0.25)}) {
    SCOPED_TRACE(rate > 0 ? "with dropout" : "without dropout");
    Case c(GetParam(), 1, rate);
    c.reference();
    run(ExecSpace(), c);
    expect_reference(c);
  }
}

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (int T : {1, 2, 31, 64, 65, 130})
    for (int D : {1, 3, 16, 32, 64, 80, 128}) all.push_back({1 + T % 2, T, D % 3 == 0 ? 3 : 1, D});
  // Heads that share keys and values: two, three, all of them; more than the threads, and fewer.
  all.insert(all.end(), {{2, 65, 4, 16, 2}, {1, 70, 6, 5, 2}, {1, 130, 3, 33, 1}, {3, 31, 8, 8, 4}});
  all.insert(all.end(), {{2, 65, 3, 64}, {1, 17, 2, 256}, {1, 257, 1, 200}, {2, 96, 3, 7}, {1, 33, 2, 255}});
  // Several bands of scores on GPUs: of sequences, of heads, and with more of them than are computed at one time.
  all.insert(all.end(), {{2, 513, 4, 4, 2}, {1, 600, 4, 3, 2}, {17, 1024, 1, 2}, {1, 1024, 17, 2}});
  // Windows: of one key, within tiles and bands and over several of them, of all keys but one.
  all.insert(all.end(), {{1, 65, 2, 16, 2, 1},
                         {2, 130, 3, 64, 3, 37},
                         {1, 257, 1, 200, 1, 64},
                         {2, 96, 3, 7, 3, 95},
                         {1, 150, 2, 24, 1, 33},
                         {2, 513, 4, 4, 2, 100},
                         {1, 600, 4, 3, 2, 300},
                         {1, 1024, 17, 2, 17, 65},
                         {3, 31, 8, 8, 4, 30}});
  // Several blocks of keys on CPUs, for one tile of queries and for several, without and with windows.
  all.insert(all.end(), {{2, 330, 2, 256},
                         {3, 520, 4, 200, 2},
                         {1, 1100, 2, 64},
                         {2, 330, 2, 256, 2, 70},
                         {3, 520, 4, 200, 2, 1},
                         {3, 520, 4, 200, 2, 129},
                         {3, 520, 4, 200, 4, 300}});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Shapes, Attention, ::testing::ValuesIn(shapes()), [](const auto& instance) {
  const Shape& s = instance.param;
  return "B" + std::to_string(s.B) + "T" + std::to_string(s.T) + "H" + std::to_string(s.H) + "D" +
         std::to_string(s.D) + (s.G == s.H ? "" : "G" + std::to_string(s.G)) +
         (s.window == s.T ? "" : "W" + std::to_string(s.window));
});

TEST(AttentionNumbers, LargeScoresNeitherOverflowNorVanish) {
  Case c({1, 70, 2, 16}, 30, 0);  // scores of several thousand
  c.reference();
  run(ExecSpace(), c);
  EXPECT_TRUE(near("out", c.out, c.want_out, 1e-3 + 3 * stored_rounding));
  EXPECT_TRUE(near("lse", c.lse, c.want_lse, 1e-6));
  for (double g : doubles(c.grad_qkv)) ASSERT_TRUE(std::isfinite(g));
}

/// Softmax does not see what all scores of a query have in common: d loss / d scores of a query add up to 0, and
/// with them the gradients of the keys of a head, whatever its queries are. Values and queries with much in common,
/// as trained models have, show what is left of that.
TEST(AttentionNumbers, GradientsOfTheKeysOfAHeadAddUpToNothing) {
  for (const Shape& s : {Shape{2, 200, 3, 64}, Shape{2, 200, 4, 32, 2, 70}, Shape{1, 600, 2, 64},
                         Shape{3, 64, 4, 16}, Shape{1, 600, 2, 7}})
    for (Real rate : {Real(0), Real(0.25)}) {
      Case c(s, 0.3, rate);
      const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), c.qkv);
      for (std::size_t i = 0; i < host.size(); ++i) {
        const int head = int(i / std::size_t(s.D)) % (s.H + 2 * s.G), d = int(i % std::size_t(s.D));
        const int common = head < s.H ? 2 : head < s.H + s.G ? 0 : 5;
        host.data()[i] = Real(host.data()[i]) + Real(common * (1 + d % 3));
      }
      Kokkos::deep_copy(c.qkv, host);
      run(ExecSpace(), c);
      const auto grad = doubles(c.grad_qkv);
      double largest = 0;
      for (int b = 0; b < s.B; ++b)
        for (int g = 0; g < s.G; ++g)
          for (int d = 0; d < s.D; ++d) {
            double sum = 0, square = 0;
            for (int t = 0; t < s.T; ++t) {
              const double x = grad[c.at(b, t, 1, g, d)];
              sum += x;
              square += x * x;
            }
            largest = std::max(largest, std::abs(sum) / std::sqrt(square));
          }
      // In bf16 each gradient of a score and of a key is rounded for itself, which adds up as noise does.
      EXPECT_LT(largest, 3e-4 + 3 * stored_rounding) << ::testing::PrintToString(s) << " dropout " << rate;
    }
}

TEST(AttentionNumbers, NanOfOneQueryReachesItsRowAlone) {
  Case c({1, 40, 1, 8}, 1, 0);
  Kokkos::deep_copy(Kokkos::subview(c.qkv, 0, 20, 0, Kokkos::ALL), Stored(std::numeric_limits<Real>::quiet_NaN()));
  run(ExecSpace(), c);
  const auto lse = doubles(c.lse), out = doubles(c.out);
  for (int t = 0; t < 40; ++t) {
    EXPECT_EQ(std::isnan(lse[t]), t == 20) << "lse at t=" << t;
    EXPECT_EQ(std::isnan(out[std::size_t(t) * 8]), t == 20) << "out at t=" << t;
  }
}

TEST(AttentionNumbers, TheFutureDoesNotReachThePast) {
  Case c({1, 150, 1, 24}, 1, Real(0.1));
  run(ExecSpace(), c);
  const auto before = doubles(c.out);
  const int first = 77;
  Case::fill(Kokkos::subview(c.qkv, 0, Kokkos::make_pair(first, 150), Kokkos::ALL, Kokkos::ALL), RandomStream(1, 2),
             50);
  run(ExecSpace(), c);
  const auto after = doubles(c.out);
  for (std::size_t i = 0; i < std::size_t(first) * 24; ++i) ASSERT_EQ(before[i], after[i]) << "out element " << i;
  EXPECT_NE(before.back(), after.back());
}

TEST(AttentionNumbers, WhatIsBeforeAWindowDoesNotReachIt) {
  Case c({1, 150, 2, 24, 1, 40}, 1, Real(0.1));
  run(ExecSpace(), c);
  const auto before = doubles(c.out);
  const int changed = 60;
  Case::fill(Kokkos::subview(c.qkv, 0, Kokkos::make_pair(0, changed), Kokkos::ALL, Kokkos::ALL), RandomStream(1, 2),
             50);
  run(ExecSpace(), c);
  const auto after = doubles(c.out);
  const std::size_t row = 2 * 24, first = std::size_t(changed + 39) * row;
  for (std::size_t i = first; i < after.size(); ++i) ASSERT_EQ(before[i], after[i]) << "out element " << i;
  EXPECT_NE(before[first - row], after[first - row]) << "the last query that sees a key that changed";
  EXPECT_THROW(causal_attention(ExecSpace(), c.parts(), {1, 0}, c.dropout, c.out, c.lse, c.scores), ShapeError);
}

#if !defined(DEKODER_BACKEND_CUDA)
TEST(AttentionThreads, AnyNumberGivesTheSameBits) {
  const ExecSpace all;
  const auto one = one_thread();
  if (!one) GTEST_SKIP() << "one thread only: nothing to compare";
  ASSERT_EQ(one->concurrency(), 1);
  // One head on several threads is cut into tiles, forward and backward; several heads are not.
  for (Shape shape : {Shape{1, 16, 1, 8}, Shape{1, 64, 1, 8}, Shape{1, 130, 1, 8}, Shape{1, 130, 1, 24},
                      Shape{1, 330, 1, 40}, Shape{2, 130, 3, 64}, Shape{1, 100, 2, 5}, Shape{1, 100, 3, 5, 1},
                      Shape{2, 70, 4, 16, 2}, Shape{1, 300, 4, 8, 2}, Shape{1, 330, 1, 40, 1, 70},
                      Shape{2, 130, 3, 64, 3, 20}, Shape{1, 300, 4, 8, 2, 129}, Shape{1, 400, 1, 200},
                      Shape{2, 400, 4, 200, 2}, Shape{1, 400, 1, 200, 1, 150}, Shape{3, 400, 4, 200, 4, 150}})
    for (Real rate : {Real(0), Real(0.3)}) {
      Case c(shape, 1, rate);
      run(*one, c);
      const auto out = doubles(c.out), lse = doubles(c.lse), grad = doubles(c.grad_qkv), delta = doubles(c.delta);
      run(all, c);
      EXPECT_TRUE(same("delta", c.delta, delta)) << ::testing::PrintToString(shape);
      EXPECT_TRUE(same("out", c.out, out)) << ::testing::PrintToString(shape);
      EXPECT_TRUE(same("lse", c.lse, lse)) << ::testing::PrintToString(shape);
      EXPECT_TRUE(same("grad_qkv", c.grad_qkv, grad)) << ::testing::PrintToString(shape);
    }
}
#endif

#if !defined(DEKODER_BACKEND_CUDA)
TEST(AttentionDropout, VectorDrawsAreTheScalarDrawsBitForBit) {
  const RandomStream numbers(5, site_of("test.draws"), 17);
  const auto check = [&](Real rate, int b, int h, int T, int query, int key) {
    const Dropout dropout{rate, numbers, 1000};
    const host::Vector factors = host::WeightDropout(dropout, b, h, T).factors(query, key);
    const RandomStream stream = dropout.sample(b).child(std::uint64_t(h));
    int dropped = 0;
    for (int lane = 0; lane < host::vector_width; ++lane) {
      const Real want = dropout.factor(stream, std::uint64_t(query + lane) * std::uint64_t(T) + std::uint64_t(key));
      EXPECT_EQ(factors[lane], want) << "rate " << rate << " T=" << T << " query " << query << "+" << lane
                                     << " key " << key;
      dropped += want == 0 ? 1 : 0;
    }
    return dropped;
  };
  int draws = 0, dropped = 0;
  for (int T : {1, 2, 31, 256, 1000003})
    for (int query = 0; query < 300; query += 7)
      for (int key : {0, 1, 30, T - 1}) dropped += check(Real(0.3), query % 5, query % 3, T, query, key), ++draws;
  EXPECT_NEAR(double(dropped) / (draws * host::vector_width), 0.3, 0.03);
  // Elements whose number passes 2^32 between two lanes.
  check(Real(0.5), 0, 0, 1 << 28, 8, 5);
  check(Real(0.5), 0, 0, 2000000011, 1, 7);
  // A rate that equals a lane's number, and its neighbours: "dropped" means strictly below the rate.
  const RandomStream stream = Dropout{Real(0.5), numbers, 1000}.sample(2).child(1);
  for (int query = 0; query < 50; ++query) {
    const float rate = stream.uniform(std::uint64_t(query) * 64 + 3);
    for (float near_by : {rate, std::nextafter(rate, 0.0f), std::nextafter(rate, 1.0f)})
      check(Real(near_by), 2, 1, 64, query, 3);
  }
  for (Real rate : {Real(1e-8), Real(1e-7), Real(0.999999)}) check(rate, 0, 0, 9, 4, 2);
}
#endif

TEST(AttentionShapes, ConflictNamesTensorAndAxis) {
  const Case c({2, 5, 1, 4}, 1, 0);
  const MasterTensor3 short_lse("lse", 2, 1, 4);
  const auto message = [](auto call) -> std::string {
    try {
      call();
    } catch (const ShapeError& error) {
      return error.what();
    }
    return "no ShapeError";
  };
  const std::string forward =
      message([&] { causal_attention(ExecSpace(), c.parts(), c.form, c.dropout, c.out, short_lse, c.scores); });
  EXPECT_NE(forward.find("lse is (2,1,4)"), std::string::npos) << forward;
  EXPECT_NE(forward.find("conflict at T"), std::string::npos) << forward;
  const std::string backward = message([&] {
    causal_attention_backward(ExecSpace(), c.parts(), c.out, c.grad_out, c.lse, c.form, c.dropout, short_lse,
                              c.grad_parts(), c.scores);
  });
  EXPECT_NE(backward.find("delta is (2,1,4)"), std::string::npos) << backward;
  const Case three({1, 5, 3, 4}, 1, 0);
  const std::string heads = message([&] {
    causal_attention(ExecSpace(), heads_of(three.qkv, 3, 2), 1, three.dropout, three.out, three.lse, three.scores);
  });
  EXPECT_NE(heads.find("3 heads of queries share 2 of keys and values"), std::string::npos) << heads;
  const StridedTensor4 every_second(c.qkv.data(), Kokkos::LayoutStride(2, 20, 5, 4, 1, 4, 4, 2));
  const std::string gaps = message([&] {
    causal_attention(ExecSpace(), {every_second, every_second, every_second}, 1, c.dropout,
                     StoredTensor4(c.out.data(), 2, 5, 1, 4), c.lse, c.scores);
  });
  EXPECT_NE(gaps.find("the elements of a head lie 2 apart"), std::string::npos) << gaps;
}

TEST(CachedAttention, EqualsCausalAttentionRowByRow) {
  for (Shape s : {Shape{1, 1, 1, 1}, Shape{2, 37, 3, 16}, Shape{1, 70, 2, 33}, Shape{2, 20, 6, 8, 2},
                  Shape{1, 70, 2, 33, 2, 9}}) {
    Case c(s, 1, 0);
    run(ExecSpace(), c);
    const auto want = doubles(c.out);
    const StoredTensor5 cache("cache", s.B, 2, s.G, s.T, s.D);
    const StoredTensor4 out("out", s.B, 1, s.H, s.D);
    const auto sums = filled_tensor<MasterTensor3>(NAN, s.B, s.H, s.D);
    Kokkos::deep_copy(cache, Stored(std::numeric_limits<Real>::quiet_NaN()));  // what is not yet filled is not read
    for (int t = 0; t < s.T; ++t) {
      const auto one = [&](const StridedTensor4& part) {
        return StridedTensor4(
            Kokkos::subview(part, Kokkos::ALL, Kokkos::make_pair(t, t + 1), Kokkos::ALL, Kokkos::ALL));
      };
      const Heads all = c.parts();
      cached_attention(ExecSpace(), Heads{one(all.query), one(all.key), one(all.value)}, t, c.form, cache, sums,
                       out);
      ExecSpace().fence();
      const auto got = doubles(out);
      for (int b = 0; b < s.B; ++b)
        for (int i = 0; i < s.H * s.D; ++i)
          ASSERT_NEAR(got[std::size_t(b) * s.H * s.D + i], want[(std::size_t(b) * s.T + t) * s.H * s.D + i],
                      1e-5 + 4 * stored_rounding)
              << ::testing::PrintToString(s) << " t=" << t << " b=" << b << " element " << i;
    }
  }
}

TEST(CachedAttention, EachSequenceStandsAtAPositionOfItsOwn) {
  const Shape s{3, 20, 6, 8, 2, 9};
  const int at[] = {5, 0, 13};
  Case c(s, 1, 0);
  run(ExecSpace(), c);
  const auto want = doubles(c.out);
  const StoredTensor5 cache("cache", s.B, 2, s.G, s.T, s.D);
  Kokkos::deep_copy(cache, Stored(std::numeric_limits<Real>::quiet_NaN()));
  const StoredTensor4 token("token", s.B, 1, s.H + 2 * s.G, s.D), out("out", s.B, 1, s.H, s.D);
  const IntTensor1 positions("positions", std::size_t(s.B));
  const auto host = Kokkos::create_mirror_view(positions);
  for (int b = 0; b < s.B; ++b) {
    host(b) = at[b];
    const auto of = [&](const auto& tensor, auto... range) {
      return Kokkos::subview(tensor, Kokkos::make_pair(b, b + 1), range..., Kokkos::ALL, Kokkos::ALL);
    };
    const Heads all = c.parts();
    const auto before = Kokkos::make_pair(0, at[b]);
    if (at[b] > 0)  // nothing of the token itself: that is the call's to append
      fill_cache(ExecSpace(), Heads{of(all.query, before), of(all.key, before), of(all.value, before)},
                 StoredTensor5(&cache(b, 0, 0, 0, 0), 1, 2, s.G, s.T, s.D));
    Kokkos::deep_copy(of(token, Kokkos::ALL), of(c.qkv, Kokkos::make_pair(at[b], at[b] + 1)));
  }
  Kokkos::deep_copy(positions, host);
  const MasterTensor3 sums("sums", s.B, s.H, s.D);
  const auto call = [&](int least, int largest) {
    cached_attention(ExecSpace(), heads_of(token, s.H, s.G), FirstPositions(positions, least, largest), c.form,
                     cache, sums, out);
    ExecSpace().fence();
  };
  call(0, 13);
  const auto got = doubles(out);
  for (int b = 0; b < s.B; ++b)
    for (int i = 0; i < s.H * s.D; ++i)
      ASSERT_NEAR(got[std::size_t(b) * s.H * s.D + i], want[(std::size_t(b) * s.T + at[b]) * s.H * s.D + i],
                  1e-5 + 4 * stored_rounding)
          << "sequence " << b << " element " << i;
  EXPECT_THROW(call(0, s.T), ShapeError);
  EXPECT_THROW(call(-1, 13), ShapeError);
}

TEST(CachedAttention, PositionBeyondTheCacheThrows) {
  const StoredTensor5 cache("cache", 1, 2, 1, 4, 8);
  const StoredTensor2 token("token", 1, 24);
  const StoredTensor4 out("out", 1, 1, 1, 8);
  const MasterTensor3 sums("sums", 1, 1, 8);
  EXPECT_THROW(cached_attention(ExecSpace(), split_heads(token, 1, 1, 1), 4, 1, cache, sums, out), ShapeError);
  EXPECT_THROW(cached_attention(ExecSpace(), split_heads(token, 1, 1, 1), -1, 1, cache, sums, out), ShapeError);
}

TEST(SplitHeads, FindsQueriesKeysAndValuesOfEachHead) {
  const int B = 2, T = 3, H = 4, G = 2, D = 5;
  const StoredTensor2 qkv("qkv", B * T, (H + 2 * G) * D);
  const auto host = Kokkos::create_mirror_view(qkv);
  for (std::size_t i = 0; i < host.size(); ++i) host.data()[i] = Real(i);
  Kokkos::deep_copy(qkv, host);
  const Heads got = split_heads(qkv, B, H, G), want = heads_of(StoredTensor4(qkv.data(), B, T, H + 2 * G, D), H, G);
  EXPECT_TRUE(same("query", clone_of(got.query), doubles(clone_of(want.query))));
  EXPECT_TRUE(same("key", clone_of(got.key), doubles(clone_of(want.key))));
  EXPECT_TRUE(same("value", clone_of(got.value), doubles(clone_of(want.value))));
  EXPECT_THROW(split_heads(qkv, 4, H, G), ShapeError);
  EXPECT_THROW(split_heads(qkv, B, 5, G), ShapeError);
}

TEST(AttentionShapes, HeadsThatCannotShareKeysAreRefused) {
  const Case three({1, 5, 3, 4}, 1, 0);
  const auto uneven = heads_of(three.qkv, 3, 2);
  EXPECT_THROW(
      causal_attention(ExecSpace(), uneven, 1, three.dropout, three.out, three.lse, attention_scores(1, 5, 2)),
      ShapeError);
  EXPECT_THROW(causal_attention_backward(ExecSpace(), uneven, three.out, three.grad_out, three.lse, 1,
                                         three.dropout, three.delta, uneven, attention_scores(1, 5, 2)),
               ShapeError);
}

TEST(AttentionShapes, GradientsWithGapsAreRefused) {
  const Case c({2, 5, 2, 4}, 1, 0);
  const StoredTensor1 wide("wide", 2 * 5 * 2 * 4 * 2);
  const StridedTensor4 gaps(wide.data(), Kokkos::LayoutStride(2, 80, 5, 16, 2, 8, 4, 2));
  const Heads whole = c.grad_parts();
  for (const Heads& grad : {Heads{gaps, whole.key, whole.value}, Heads{whole.query, gaps, whole.value},
                            Heads{whole.query, whole.key, gaps}}) {
    EXPECT_THROW(causal_attention_backward(ExecSpace(), c.parts(), c.out, c.grad_out, c.lse, c.form, c.dropout,
                                           c.delta, grad, c.scores),
                 ShapeError);
  }
}

#if defined(DEKODER_ROW_TEAMS)
TEST(AttentionShapes, ScratchThatDoesNotHoldTheScoresIsRefused) {
  const Case c({2, 5, 1, 4}, 1, 0);
  const MasterTensor1 less("scores", c.scores.size() - 1);
  EXPECT_THROW(causal_attention(ExecSpace(), c.parts(), 1, c.dropout, c.out, c.lse, less), ShapeError);
  EXPECT_THROW(causal_attention_backward(ExecSpace(), c.parts(), c.out, c.grad_out, c.lse, 1, c.dropout, c.delta,
                                         c.grad_parts(), less),
               ShapeError);
}

TEST(AttentionShapes, ScoresOfABandOfSomeMatricesAreScratch) {
  const std::size_t bands = stored_is_short ? 3 : 2;  // of scores; of what becomes of them, in half the bytes
  EXPECT_EQ(attention_score_elements(3, 5, 2), bands * 3 * 5 * 5) << "short contexts: whole matrices, of sequences";
  EXPECT_EQ(attention_score_elements(3, 300, 4), bands * 4 * 256 * 300) << "a band, of heads";
  EXPECT_EQ(attention_score_elements(64, 1024, 12), bands * 16 * 256 * 1024)
      << "not more than 4 Mi elements of each";
  EXPECT_EQ(attention_score_elements(2, 100000, 12), bands * 256 * 100000) << "one matrix at least";
}
#endif

TEST(AttentionShapes, RowsThatAreNoHeadsAreRefused) {
  const StoredTensor2 qkv("qkv", 6,
                          16);  // 2 sequences of 3 tokens; 4 heads of queries, 2 of keys and values, 2 elements
  EXPECT_EQ(split_heads(qkv, 2, 4, 2).key.extent(3), 2u);
  EXPECT_THROW(split_heads(qkv, 0, 4, 2), ShapeError) << "no sequence";
  EXPECT_THROW(split_heads(qkv, 4, 4, 2), ShapeError) << "6 rows for 4 sequences";
  EXPECT_THROW(split_heads(qkv, 2, 16, 0), ShapeError) << "no keys";
  EXPECT_THROW(split_heads(qkv, 2, 4, 3), ShapeError) << "16 elements for 10 heads";
}

}  // namespace
}  // namespace dekoder::testing
