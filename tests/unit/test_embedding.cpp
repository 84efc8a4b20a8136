// SPDX-License-Identifier: Apache-2.0
#include "kernels/embedding.hpp"

#include "kernels/rows.hpp"
#include "support/host_tensor.hpp"
#include "support/one_thread.hpp"
#include "support/reference.hpp"

namespace dekoder::testing {
namespace {

struct Shape {
  int batch, tokens, columns, vocabulary;
};
// The last ones: sorted by merging twice, thrice, four times, and without a run that is shorter than the others.
const Shape shapes[] = {{1, 1, 1, 1},    {2, 3, 5, 7},    {3, 17, 33, 4},   {5, 64, 48, 300},
                        {1, 600, 2, 90}, {1, 2000, 2, 7}, {2, 1500, 3, 40}, {2, 256, 1, 5}};

std::vector<int> some_tokens(int count, int vocabulary) {
  std::vector<int> tokens;
  for (int n = 0; n < count; ++n) tokens.push_back((n * 7919 + n * n) % vocabulary);
  return tokens;
}

/// Scratch of embedding_backward.
IntTensor1 merged_of(int tokens) {
  return filled_tensor<IntTensor1>(-7, token_sort_elements(tokens));
}

/// What `start` holds after the rows of x have been added in ascending order, each to row row_of(n), in Real.
Doubles values_added(const MasterTensor2& start, const Tensor2& x, const auto& row_of) {
  const auto sums = Kokkos::create_mirror(start), rows = Kokkos::create_mirror(x);
  Kokkos::deep_copy(sums, start);
  Kokkos::deep_copy(rows, x);
  for (int n = 0; n < x.extent_int(0); ++n)
    for (int c = 0; c < x.extent_int(1); ++c) sums(row_of(n), c) += rows(n, c);
  return values_of(sums);
}

TEST(Embedding, EqualsReference) {
  const ExecSpace exec;
  for (const auto [B, T, C, V] : shapes)
    for (const bool with_positions : {true, false})
      for (const double rate : {0.0, 0.3}) {
        SCOPED_TRACE(fmt::format("B={} T={} C={} V={} positions={} rate={}", B, T, C, V, with_positions, rate));
        const int N = B * T, first = 2;
        const auto ids = some_tokens(N, V);
        const auto tokens = tensor_of<TokenTensor2>(ids, B, T);
        const auto table = random_tensor<Tensor2>(1, V, C);
        const Tensor2 positions = with_positions ? random_tensor<Tensor2>(2, T + first, C) : Tensor2();
        const Dropout dropout{Real(rate), RandomStream(3, 4, 5), 6};
        const auto x = filled_tensor<Tensor2>(NAN, N, C);
        embedding(exec, tokens, table, positions, first, dropout, x);
        exec.fence();
        Doubles expected = dropout_factors(dropout, N, C, T);
        const auto rows = on_host(table), places = on_host(positions);
        for (int n = 0; n < N; ++n)
          for (int c = 0; c < C; ++c)
            expected[std::size_t(n * C + c)] *=
                double(rows(ids[std::size_t(n)], c)) + (with_positions ? double(places(first + n % T, c)) : 0.0);
        EXPECT_TRUE(near(x, expected));
      }
}

TEST(EmbeddingBackward, AddsTheGradientOfEveryOccurrence) {
  const ExecSpace exec;
  for (const auto [B, T, C, V] : shapes) {
    SCOPED_TRACE(fmt::format("B={} T={} C={} V={}", B, T, C, V));
    const int N = B * T;
    const auto ids = some_tokens(N, V);
    const auto grad_x = random_tensor<Tensor2>(1, N, C), grad_table = random_tensor<Tensor2>(2, V, C);
    Doubles expected = values_of(grad_table);
    const Doubles added = values_of(grad_x);
    for (int n = 0; n < N; ++n)
      for (int c = 0; c < C; ++c)
        expected[std::size_t(ids[std::size_t(n)] * C + c)] += added[std::size_t(n * C + c)];
    const auto row_begin = filled_tensor<IntTensor1>(-7, V + 1), row_tokens = filled_tensor<IntTensor1>(-7, N);
    const auto in_order = values_added(grad_table, grad_x, [&](int n) { return ids[std::size_t(n)]; });
    embedding_backward(exec, tensor_of<TokenTensor2>(ids, B, T), grad_x, grad_table, row_begin, row_tokens,
                       merged_of(N));
    exec.fence();
    EXPECT_TRUE(near(grad_table, expected, 1e-5));
    EXPECT_TRUE(near(grad_table, in_order, 0.0)) << "not added in ascending order";
    // row_tokens: a stable sort, so every row adds in ascending position.
    const auto begin = on_host(row_begin), sorted = on_host(row_tokens);
    EXPECT_EQ(begin(0), 0);
    EXPECT_EQ(begin(V), N);
    for (int v = 0; v < V; ++v)
      for (int place = begin(v); place < begin(v + 1); ++place) {
        EXPECT_EQ(ids[std::size_t(sorted(place))], v);
        if (place > begin(v)) {
          EXPECT_GT(sorted(place), sorted(place - 1));
        }
      }
  }
}

#if !defined(DEKODER_BACKEND_CUDA)
TEST(EmbeddingBackward, ResultsDoNotDependOnThreads) {
  const ExecSpace all;
  const auto one = one_thread();
  if (!one) GTEST_SKIP() << "one thread only: nothing to compare";
  const int B = 4, T = 100, C = 20, V = 9;
  const auto tokens = tensor_of<TokenTensor2>(some_tokens(B * T, V), B, T);
  const auto grad_x = random_tensor<Tensor2>(1, B * T, C);
  const IntTensor1 row_begin("row_begin", V + 1), row_tokens("row_tokens", B * T);
  const Tensor2 first("first", V, C), second("second", V, C);
  embedding_backward(all, tokens, grad_x, first, row_begin, row_tokens, merged_of(B * T));
  all.fence();
  embedding_backward(*one, tokens, grad_x, second, row_begin, row_tokens, merged_of(B * T));
  one->fence();
  EXPECT_TRUE(identical(first, second));
}
#endif

#if defined(DEKODER_ROW_TEAMS)
TEST(EmbeddingBackward, NeedsScratchForTheSort) {
  const Tensor2 grad("grad", 6, 4);
  EXPECT_THROW(embedding_backward(ExecSpace(), TokenTensor2("tokens", 2, 3), grad, grad, IntTensor1("begin", 7),
                                  IntTensor1("tokens", 6), IntTensor1("merged", 5)),
               ShapeError);
}
#endif

TEST(PositionBackward, AddsOverTheBatchAndLeavesLaterRows) {
  const ExecSpace exec;
  for (const auto [B, T, C, V] : shapes) {
    const int N = B * T, S = T + 3;
    const auto grad_x = random_tensor<Tensor2>(1, N, C), grad_positions = random_tensor<Tensor2>(2, S, C);
    Doubles expected = values_of(grad_positions);
    const Doubles added = values_of(grad_x);
    for (int n = 0; n < N; ++n)
      for (int c = 0; c < C; ++c) expected[std::size_t(n % T * C + c)] += added[std::size_t(n * C + c)];
    const auto in_order = values_added(grad_positions, grad_x, [T = T](int n) { return n % T; });
    position_backward(exec, grad_x, T, grad_positions);
    exec.fence();
    EXPECT_TRUE(near(grad_positions, expected, 1e-5)) << "B=" << B << " T=" << T;
    EXPECT_TRUE(near(grad_positions, in_order, 0.0)) << "not added in ascending order, B=" << B << " T=" << T;
  }
}

TEST(SinusoidalPositions, EqualsTheFormula) {
  const ExecSpace exec;
  for (const int C : {1, 2, 7, 64}) {
    const auto positions = filled_tensor<Tensor2>(NAN, 1000, C);
    sinusoidal_positions(exec, positions);
    exec.fence();
    Doubles expected;
    for (int t = 0; t < 1000; ++t)
      for (int c = 0; c < C; ++c) {
        const double angle = t / std::pow(10000.0, 2.0 * (c / 2) / C);
        expected.push_back(c % 2 == 0 ? std::sin(angle) : std::cos(angle));
      }
    EXPECT_TRUE(near(positions, expected, 1e-7)) << "C=" << C;
  }
}

TEST(Embedding, ExtentsThatDoNotFitAreErrors) {
  const ExecSpace exec;
  const TokenTensor2 tokens("tokens", 2, 3);
  const Tensor2 table("table", 5, 4), x("x", 6, 4);
  EXPECT_THROW(embedding(exec, tokens, table, {}, 0, Dropout{}, Tensor2("x", 5, 4)), ShapeError);
  EXPECT_THROW(embedding(exec, tokens, table, Tensor2("positions", 3, 4), 1, Dropout{}, x), ShapeError);
  EXPECT_THROW(
      embedding_backward(exec, tokens, x, table, IntTensor1("begin", 5), IntTensor1("tokens", 6), merged_of(6)),
      ShapeError);
  EXPECT_THROW(position_backward(exec, x, 3, Tensor2("positions", 2, 4)), ShapeError);
  EXPECT_THROW(position_backward(exec, x, 4, Tensor2("positions", 4, 4)), ShapeError);
}

}  // namespace
}  // namespace dekoder::testing
