// SPDX-License-Identifier: Apache-2.0
// kernels/gemm_cublaslt against a stand-in for the library that computes on the host: products, the cache of plans,
// errors, lifetimes. No GPU, no libcublasLt.
#include "kernels/gemm_cublaslt.hpp"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cublaslt/fake_cublaslt.hpp"
#include "cublaslt/operand.hpp"

namespace {

using dekoder::CublasLt;
using fake_cublaslt::record;

constexpr double fp32_error = 1e-6, bf16_error = 1.0 / 256;

class GemmCublasLt : public testing::Test {
 protected:
  void SetUp() override { fake_cublaslt::reset(); }
  void TearDown() override {
    EXPECT_EQ(record().created, record().destroyed);
    EXPECT_EQ(record().handles, 0);
  }
  static void expect_right(CublasLt& library, const Case& c, bool nan_before = false) {
    const Outcome outcome = multiply(library, c, nan_before);
    EXPECT_LT(outcome.worst, c.result == CUDA_R_16BF ? bf16_error : fp32_error);
    EXPECT_EQ(outcome.bad, 0);
  }
  /// What multiply() says when it throws.
  static std::string message(CublasLt& library, const Case& c) {
    try {
      multiply(library, c);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "no error";
  }
};

TEST_F(GemmCublasLt, EveryTransposeWithGapsBatchesBiasAndAccumulation) {
  CublasLt library(false);
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      for (const int batches : {1, 3})
        for (const bool bias : {false, true})
          for (const float beta : {0.0f, 1.0f, 0.5f})
            for (const bool gaps : {false, true}) {
              Case c{.transpose_a = transpose_a, .transpose_b = transpose_b, .bias = bias, .batches = batches};
              c.beta = beta;
              if (gaps)
                c.a = {.gap = 2, .batch_gap = 5}, c.b = {.gap = 1, .batch_gap = 3},
                c.c = {.gap = 4, .batch_gap = 1};
              SCOPED_TRACE(testing::Message() << transpose_a << transpose_b << " batches " << batches << " bias "
                                              << bias << " beta " << beta << " gaps " << gaps);
              expect_right(library, c);
            }
}

TEST_F(GemmCublasLt, ExtentsOfOneAndTwo) {
  CublasLt library(false);
  for (const auto& [M, N, K] : {std::array{1, 7, 6}, {5, 1, 6}, {5, 7, 1}, {1, 1, 6}, {1, 1, 1}, {2, 2, 2}})
    for (const bool transpose : {false, true}) {
      SCOPED_TRACE(testing::Message() << M << " " << N << " " << K << " " << transpose);
      Case c{.transpose_a = transpose, .transpose_b = transpose, .bias = true, .M = M, .N = N, .K = K};
      c.a.gap = c.b.gap = c.c.gap = 3;
      expect_right(library, c);
    }
}

TEST_F(GemmCublasLt, BetaZeroDoesNotReadTheResult) {
  CublasLt library(false);
  expect_right(library, {}, true);
  expect_right(library, {.bias = true}, true);
}

TEST_F(GemmCublasLt, OneMatrixForAllOfTheBatch) {
  CublasLt library(false);
  expect_right(library, {.batches = 3, .a = {.one = true}});
  expect_right(library, {.batches = 3, .b = {.one = true}});
  expect_right(library, {.batches = 3, .a = {.one = true}, .b = {.one = true}});
}

TEST_F(GemmCublasLt, LongSumsAreSplitInTheWorkspace) {
  CublasLt library(false);
  Case c{.K = 200};
  expect_right(library, c);
  EXPECT_EQ(record().workspace_used, 2u * 5 * 7 * 4);
  c.workspace = 2 * 5 * 7 * 4 - 1;
  expect_right(library, c);
  EXPECT_EQ(record().workspace_used, 0u);
  c.workspace = 0;
  expect_right(library, c);
}

/// Memory of Kokkos lies 128 bytes behind what CUDA aligns to 256, which the library expects of the workspace.
TEST_F(GemmCublasLt, WorkspaceOfAnyAlignment) {
  CublasLt library(false);
  for (const std::size_t offset : {0, 8, 64, 128, 252}) {
    SCOPED_TRACE(offset);
    expect_right(library, {.K = 200, .workspace = 4096, .workspace_offset = offset});
    EXPECT_EQ(record().workspace_used, 2u * 5 * 7 * 4);
    expect_right(library, {.K = 200, .workspace = 100, .workspace_offset = offset});
    expect_right(library, {.M = 1, .N = 1, .K = 200, .batches = 1, .workspace = 100, .workspace_offset = offset});
    EXPECT_EQ(record().workspace_used, offset == 0 || offset == 252 ? 4u : 0u);
  }
}

TEST_F(GemmCublasLt, Bf16WithResultsInBf16AndFp32) {
  CublasLt library(true);
  for (const cudaDataType_t result : {CUDA_R_16BF, CUDA_R_32F})
    for (const bool bias : {false, true}) {
      Case c{.transpose_b = true, .bias = bias, .stored = CUDA_R_16BF, .result = result};
      c.c.gap = 2;
      c.beta = 1;
      expect_right(library, c);
      EXPECT_EQ(record().compute_type, CUBLAS_COMPUTE_32F) << "TF32 is for fp32";
    }
}

TEST_F(GemmCublasLt, Fp64IsComputedInFp64) {
  CublasLt library(true);
  for (const std::int64_t K : {6, 200}) {  // 200: in two halves
    Case c{.transpose_b = true, .bias = true, .K = K, .stored = CUDA_R_64F, .result = CUDA_R_64F};
    c.alpha = 1.0 / 3;
    c.beta = 0.1;
    const Outcome outcome = multiply(library, c);
    EXPECT_LT(outcome.worst, 1e-15);
    EXPECT_EQ(outcome.bad, 0);
    EXPECT_EQ(record().compute_type, CUBLAS_COMPUTE_64F);
    EXPECT_EQ(record().workspace_used, K == 6 ? 0u : 2u * 5 * 7 * 8);
  }
}

/// A sum in two halves that are rounded to bf16 has up to three times the error of one that is rounded once.
TEST_F(GemmCublasLt, SumsAreNeverSplitInTheTypeOfTheResult) {
  CublasLt library(false);
  Case c{.K = 256, .stored = CUDA_R_16BF, .result = CUDA_R_16BF};
  multiply(library, c);
  EXPECT_EQ(record().reduction_mask & CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 0u);
  EXPECT_EQ(record().reduction_mask & CUBLASLT_REDUCTION_SCHEME_INPLACE, 0u) << "it adds up in the result";
  EXPECT_NE(record().reduction_mask & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 0u);
  c.stored = c.result = CUDA_R_32F;
  multiply(library, c);
  EXPECT_EQ(record().reduction_mask & CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 0u);
}

TEST_F(GemmCublasLt, Tf32IsAnOptionAndRoundsTheFactors) {
  const Case c{.K = 50};
  {
    CublasLt library(false);
    expect_right(library, c);
    EXPECT_EQ(record().compute_type, CUBLAS_COMPUTE_32F);
  }
  CublasLt library(true);
  const double worst = multiply(library, c).worst;
  EXPECT_EQ(record().compute_type, CUBLAS_COMPUTE_32F_FAST_TF32);
  EXPECT_GT(worst, 1e-5);
  EXPECT_LT(worst, 1e-3);
}

TEST_F(GemmCublasLt, NameTellsVersionAndTf32) {
  const std::string version = "cuBLASLt " + std::to_string(CUBLAS_VER_MAJOR) + "." +
                              std::to_string(CUBLAS_VER_MINOR) + "." + std::to_string(CUBLAS_VER_PATCH);
  EXPECT_EQ(CublasLt(false).name(), version);
  EXPECT_EQ(CublasLt(true).name(), version + " (TF32)");
}

// --- The cache of plans.

TEST_F(GemmCublasLt, TheSameFormIsPlannedOnce) {
  CublasLt library(false);
  for (int i = 0; i < 3; ++i) expect_right(library, {.bias = true});
  EXPECT_EQ(library.plans(), 1u);
  EXPECT_EQ(record().heuristics, 1);
  EXPECT_EQ(record().products, 3);
}

TEST_F(GemmCublasLt, EveryPartOfTheFormMakesAPlanOfItsOwn) {
  using Change = std::pair<const char*, std::function<void(Case&)>>;
  const Change changes[] = {{"transpose_a", [](Case& c) { c.transpose_a = true; }},
                            {"transpose_b", [](Case& c) { c.transpose_b = true; }},
                            {"bias", [](Case& c) { c.bias = false; }},
                            {"alignment of the bias", [](Case& c) { c.bias_offset = 4; }},
                            {"M", [](Case& c) { c.M = 6; }},
                            {"N", [](Case& c) { c.N = 6, c.b.gap = c.c.gap = 3; }},
                            {"K", [](Case& c) { c.K = 5, c.a.gap = 3; }},
                            {"batches", [](Case& c) { c.batches = 3; }},
                            {"rows of a", [](Case& c) { c.a.gap = 3, c.a.batch_gap = 3; }},
                            {"rows of b", [](Case& c) { c.b.gap = 3, c.b.batch_gap = 3; }},
                            {"rows of c", [](Case& c) { c.c.gap = 3, c.c.batch_gap = 3; }},
                            {"batch of a", [](Case& c) { c.a.batch_gap = 9; }},
                            {"batch of b", [](Case& c) { c.b.batch_gap = 9; }},
                            {"batch of c", [](Case& c) { c.c.batch_gap = 9; }},
                            {"one a", [](Case& c) { c.a.one = true; }},
                            {"one b", [](Case& c) { c.b.one = true; }},
                            {"type of the factors", [](Case& c) { c.stored = CUDA_R_16BF; }},
                            {"types", [](Case& c) { c.stored = c.result = CUDA_R_16BF; }},
                            {"alignment of a", [](Case& c) { c.a.offset = 16; }},
                            {"alignment of b", [](Case& c) { c.b.offset = 16; }},
                            {"alignment of c", [](Case& c) { c.c.offset = 128; }},
                            {"workspace", [](Case& c) { c.workspace = 1 << 15; }}};
  Case base{.bias = true};
  base.a = {.gap = 2, .batch_gap = 8};
  base.b = {.gap = 2, .batch_gap = 8};
  base.c = {.gap = 2, .batch_gap = 8};
  CublasLt library(false);
  expect_right(library, base);
  for (std::size_t i = 0; i < std::size(changes); ++i) {
    SCOPED_TRACE(changes[i].first);
    Case changed = base;
    changes[i].second(changed);
    expect_right(library, changed);
    EXPECT_EQ(library.plans(), i + 2);
    EXPECT_EQ(record().heuristics, int(i) + 2);
  }
  expect_right(library, base);
  for (const Change& change : changes) {  // all of them again, from the cache
    Case changed = base;
    change.second(changed);
    expect_right(library, changed);
  }
  EXPECT_EQ(record().heuristics, int(std::size(changes)) + 1);
}

TEST_F(GemmCublasLt, WhatMeansNothingMakesNoPlan) {
  CublasLt library(false);
  Case c{.M = 1, .K = 6, .batches = 1};
  expect_right(library, c);
  c.a.gap = 5, c.c.gap = 2;                                 // one row has no distance to the next
  c.a.batch_gap = 3, c.b.batch_gap = 4, c.c.batch_gap = 7;  // nor one matrix
  c.alpha = -2, c.beta = 3;
  expect_right(library, c);
  EXPECT_EQ(library.plans(), 1u);
}

/// The operands of each call are elsewhere; so is the bias, which is part of the library's descriptor.
TEST_F(GemmCublasLt, PointersOfTheSameAlignmentShareAPlan) {
  CublasLt library(false);
  std::vector<std::unique_ptr<Memory>> elsewhere;
  for (int i = 0; i < 8; ++i) {
    elsewhere.push_back(std::make_unique<Memory>(1000 << i));
    expect_right(library, {.bias = true});
  }
  float a[2] = {1, 2}, b[2] = {3, 4}, c[1];
  alignas(256) float first[64] = {10}, second[64] = {20};
  const auto product = [&](const float* bias) {
    library.multiply({.transpose_a = false,
                      .transpose_b = false,
                      .M = 1,
                      .N = 1,
                      .K = 2,
                      .a = {a, 2},
                      .b = {b, 1},
                      .c = {c, 1},
                      .bias = bias},
                     1, 0, nullptr, 0, nullptr);
    return c[0];
  };
  EXPECT_EQ(product(first), 21);
  EXPECT_EQ(product(second), 31);
  EXPECT_EQ(product(first), 21);
  EXPECT_EQ(record().heuristics, 2);
  EXPECT_EQ(product(nullptr), 11);
}

TEST_F(GemmCublasLt, TheStreamIsHandedOn) {
  CublasLt library(false);
  int there;
  multiply(library, {}, false, reinterpret_cast<cudaStream_t>(&there));
  EXPECT_EQ(record().stream, &there);
}

// --- Errors: one message each, nothing is left open, and the library goes on.

TEST_F(GemmCublasLt, NoAlgorithm) {
  CublasLt library(false);
  for (const auto how : {fake_cublaslt::Search::not_supported, fake_cublaslt::Search::empty}) {
    fake_cublaslt::search(how);
    const std::string said = message(library, {.M = 5, .N = 7, .K = 6, .batches = 2});
    EXPECT_NE(said.find("CUBLAS_STATUS_NOT_SUPPORTED"), std::string::npos) << said;
    EXPECT_NE(said.find("2 products of M=5 N=7 K=6"), std::string::npos) << said;
    EXPECT_EQ(library.plans(), 0u);
  }
  fake_cublaslt::search(fake_cublaslt::Search::finds);
  expect_right(library, {});
}

TEST_F(GemmCublasLt, RowsThatOverlapAreRefused) {
  CublasLt library(false);
  float numbers[64] = {};
  for (int which = 0; which < 3; ++which) {
    std::int64_t row[3] = {4, 4, 4};
    row[which] = 3;
    try {
      library.multiply({.transpose_a = false,
                        .transpose_b = false,
                        .M = 4,
                        .N = 4,
                        .K = 4,
                        .a = {numbers, row[0]},
                        .b = {numbers + 16, row[1]},
                        .c = {numbers + 32, row[2]}},
                       1, 0, nullptr, 0, nullptr);
      FAIL() << which;
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find("CUBLAS_STATUS_INVALID_VALUE"), std::string::npos) << error.what();
    }
  }
}

/// Each call of the library in turn fails; the last turn is the one in which none is left to fail.
TEST_F(GemmCublasLt, EveryCallMayFail) {
  int calls = 0;
  for (bool failed = true; failed; ++calls) {
    fake_cublaslt::reset();
    fake_cublaslt::fail_after(calls, CUBLAS_STATUS_ALLOC_FAILED);
    failed = false;
    const Case c{.bias = true, .K = 100};
    try {
      CublasLt library(false);
      const std::string said = message(library, c);
      if (said != "no error") {
        failed = true;
        EXPECT_EQ(said.find("cublasLt"), 0u) << said;
        EXPECT_NE(said.find(": CUBLAS_STATUS_ALLOC_FAILED: "), std::string::npos) << said;
        EXPECT_EQ(said.find('\n'), std::string::npos) << said;
        expect_right(library, c);
        EXPECT_EQ(library.plans(), 1u);
      }
    } catch (const std::runtime_error& error) {
      failed = true;
      EXPECT_EQ(std::string(error.what()).find("cublasLtCreate: CUBLAS_STATUS_ALLOC_FAILED: "), 0u) << error.what();
    }
    EXPECT_EQ(record().created, record().destroyed) << "call " << calls;
    EXPECT_EQ(record().handles, 0) << "call " << calls;
    ASSERT_LT(calls, 100);
  }
  EXPECT_GT(calls, 20);
}

}  // namespace
