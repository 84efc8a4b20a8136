// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <limits>

#include "io/checkpoint.hpp"
#include "io/metrics_log.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;

class MetricsLogTest : public ::testing::Test {
 protected:
  MetricsLogTest() {
    std::string pattern = (fs::temp_directory_path() / "dekoder-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    folder = pattern;
    file = folder / "metrics.jsonl";
  }
  ~MetricsLogTest() override { fs::remove_all(folder); }

  std::string contents() const {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  static StepMetrics step(long s) { return {s, 1.0 / double(s + 2), 1e-3, 0.7, std::uint64_t(s) * 100, 12.5}; }

  fs::path folder, file;
};

TEST_F(MetricsLogTest, LinesAreThese) {
  MetricsLog log(file, 0);
  log.write(StepMetrics{3, 2.5, 1e-4, std::nan(""), 1200, 1.0 / 3.0});
  log.write(EvaluationMetrics{3, 0.1, std::numeric_limits<double>::infinity(), 77, "cafe"});
  EXPECT_EQ(
      contents(),
      "{\"step\":3,\"loss\":2.5,\"learning_rate\":0.0001,\"gradient_norm\":null,\"tokens\":1200,"
      "\"tokens_per_second\":0.3333333333333333}\n"
      "{\"step\":3,\"validation_loss\":0.1,\"bits_per_byte\":null,\"tokens\":77,\"validation_hash\":\"cafe\"}\n");
}

TEST_F(MetricsLogTest, NumbersComeBackBitForBit) {
  std::uint64_t bits = 0x9E3779B97F4A7C15;
  for (int i = 0; i < 300; ++i) {
    bits = bits * 6364136223846793005u + 1442695040888963407u;
    const double value = std::bit_cast<double>(bits);
    MetricsLog log(file, 0);
    log.write(StepMetrics{i, value, -0.0, 5e-324, 1, 1});
    const LastMetrics last = read_last_metrics(file);
    ASSERT_TRUE(last.step.has_value());
    if (std::isfinite(value)) {
      EXPECT_EQ(std::bit_cast<std::uint64_t>(last.step->loss), bits);
    } else {
      EXPECT_TRUE(std::isnan(last.step->loss));
    }
    EXPECT_TRUE(std::signbit(last.step->learning_rate));
    EXPECT_EQ(last.step->gradient_norm, 5e-324);
  }
}

TEST_F(MetricsLogTest, RestartCutsToTheCheckpoint) {
  std::uint64_t kept = 0;
  std::string expected;
  {
    MetricsLog log(file, 0);
    for (long s = 1; s <= 5; ++s) log.write(step(s));
    kept = log.durable_bytes();
    for (long s = 6; s <= 8; ++s) log.write(step(s));
    expected = contents();
  }
  std::ofstream(file, std::ios::app) << "{\"step\":9,\"lo";  // died in a write
  EXPECT_EQ(read_last_metrics(file).step->step, 8);
  MetricsLog log(file, kept);
  EXPECT_EQ(contents(), expected.substr(0, kept));
  for (long s = 6; s <= 8; ++s) log.write(step(s));
  EXPECT_EQ(contents(), expected);
}

TEST_F(MetricsLogTest, NewRunStartsEmpty) {
  std::ofstream(file) << "old\n";
  MetricsLog log(file, 0);
  EXPECT_EQ(contents(), "");
  EXPECT_EQ(log.durable_bytes(), 0u);
}

TEST_F(MetricsLogTest, ForeignEditsNeverLeaveHalfLines) {
  std::ofstream(file) << "{\"step\":1}\n{\"step\":2}\n";
  {
    const MetricsLog log(file, 14);
  }  // in the middle of line 2
  EXPECT_EQ(contents(), "{\"step\":1}\n");
  {
    const MetricsLog log(file, 500);
  }  // shorter than the checkpoint says
  EXPECT_EQ(contents(), "{\"step\":1}\n");
}

TEST_F(MetricsLogTest, LastOfEachKind) {
  EXPECT_FALSE(read_last_metrics(file).step.has_value());
  MetricsLog log(file, 0);
  for (long s = 1; s <= 4; ++s) {
    log.write(step(s));
    if (s % 2 == 1) log.write(EvaluationMetrics{s, double(s), 0.5, 10, "h"});
  }
  const LastMetrics last = read_last_metrics(file);
  EXPECT_EQ(last.step->step, 4);
  EXPECT_EQ(last.step->tokens, 400u);
  EXPECT_EQ(last.evaluation->step, 3);
  EXPECT_EQ(last.evaluation->validation_loss, 3.0);
  EXPECT_EQ(last.evaluation->validation_hash, "h");
}

TEST_F(MetricsLogTest, FullDiskLosesNoLine) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  MetricsLog log(file, 0);
  log.write(step(1));
  const std::uint64_t one = log.durable_bytes();
  rlimit small = before;
  small.rlim_cur = one + 20;
  setrlimit(RLIMIT_FSIZE, &small);
  log.write(step(2));  // does not fit: no part of it may stay
  log.write(step(3));
  EXPECT_EQ(contents().size(), one);
  EXPECT_THROW(log.durable_bytes(), SaveError);
  setrlimit(RLIMIT_FSIZE, &before);
  log.write(step(4));
  long lines = 0;
  for (const char c : contents()) lines += c == '\n';
  EXPECT_EQ(lines, 4);
  EXPECT_EQ(log.durable_bytes(), contents().size());
}

TEST_F(MetricsLogTest, FolderMissingIsAConfigError) {
  EXPECT_THROW(MetricsLog(folder / "missing" / "metrics.jsonl", 0), ConfigError);
}

}  // namespace
}  // namespace dekoder
