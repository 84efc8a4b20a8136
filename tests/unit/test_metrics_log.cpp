// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "io/run/checkpoint.hpp"
#include "io/run/metrics_log.hpp"

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
  log.write(StepMetrics{4, 2.5, 1e-4, 0.5, 1600, 50, {{"data", 0.25}, {"head and loss", 0.5}}, 0.125});
  log.write(EvaluationMetrics{3, 0.1, std::numeric_limits<double>::infinity(), 77, "cafe"});
  EXPECT_EQ(
      contents(),
      "{\"step\":3,\"loss\":2.5,\"learning_rate\":0.0001,\"gradient_norm\":null,\"tokens\":1200,"
      "\"tokens_per_second\":0.3333333333333333}\n"
      "{\"step\":4,\"loss\":2.5,\"learning_rate\":0.0001,\"gradient_norm\":0.5,\"tokens\":1600,"
      "\"tokens_per_second\":50,\"z_loss\":0.125,\"seconds\":{\"data\":0.25,\"head and loss\":0.5}}\n"
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
  log.cut();
  EXPECT_EQ(contents(), expected.substr(0, kept));
  for (long s = 6; s <= 8; ++s) log.write(step(s));
  EXPECT_EQ(contents(), expected);
}

TEST_F(MetricsLogTest, NewRunStartsEmpty) {
  std::ofstream(file) << "old\n";
  MetricsLog log(file, 0);
  log.cut();
  EXPECT_EQ(contents(), "");
  EXPECT_EQ(log.durable_bytes(), 0u);
}

TEST_F(MetricsLogTest, ForeignEditsNeverLeaveHalfLines) {
  std::ofstream(file) << "{\"step\":1}\n{\"step\":2}\n";
  {
    MetricsLog log(file, 14);
    log.cut();
  }  // in the middle of line 2
  EXPECT_EQ(contents(), "{\"step\":1}\n");
  {
    MetricsLog log(file, 500);
    log.cut();
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

/// 2 layers, 3 heads, 2 statistics; every number says where it belongs.
AttentionMetrics attention(long step) {
  AttentionMetrics metrics{step, "text_0", 2, 3, {}, {"entropy", "first_token"}};
  for (int l = 0; l < 2; ++l)
    for (int h = 0; h < 3; ++h)
      for (int s = 0; s < 2; ++s) metrics.statistics.push_back(float(100 * s + 10 * l + h) + 0.1f);
  return metrics;
}

TEST_F(MetricsLogTest, AttentionAndRestartLinesAreThese) {
  MetricsLog log(file, 0);
  AttentionMetrics metrics = attention(500);
  metrics.statistics[0] = std::numeric_limits<float>::quiet_NaN();
  log.write(metrics);
  log.write(RestartMetrics{500});
  EXPECT_EQ(contents(),
            "{\"step\":500,\"probe\":\"text_0\",\"attention\":{\"entropy\":[[null,1.1,2.1],[10.1,11.1,12.1]],"
            "\"first_token\":[[100.1,101.1,102.1],[110.1,111.1,112.1]]}}\n"
            "{\"step\":500,\"resumed\":true}\n");
  metrics.heads = 2;
  EXPECT_THROW(log.write(metrics), ShapeError);
}

TEST_F(MetricsLogTest, EveryKindOfLineIsJson) {
  MetricsLog log(file, 0);
  log.write(attention(0));
  for (long s = 1; s <= 4; ++s) log.write(step(s));
  log.write(EvaluationMetrics{4, 1.0 / 3, std::nan(""), 10, "h"});
  log.write(attention(4));
  log.write(RestartMetrics{4});
  log.write(StepMetrics{5, std::nan(""), 1, 2, 3, 4});
  std::vector<nlohmann::json> rows;
  std::istringstream lines(contents());
  for (std::string line; std::getline(lines, line);) rows.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(rows.size(), 9u);
  for (long s = 1; s <= 4; ++s) {
    const nlohmann::json& got = rows[std::size_t(s)];
    const StepMetrics expected = step(s);
    EXPECT_EQ(got["step"], s);
    EXPECT_EQ(got["loss"].get<double>(), expected.loss);
    EXPECT_EQ(got["learning_rate"].get<double>(), expected.learning_rate);
    EXPECT_EQ(got["gradient_norm"].get<double>(), expected.gradient_norm);
    EXPECT_EQ(got["tokens"], expected.tokens);
    EXPECT_EQ(got["tokens_per_second"].get<double>(), expected.tokens_per_second);
  }
  EXPECT_EQ(rows[5]["validation_loss"].get<double>(), 1.0 / 3);
  EXPECT_TRUE(rows[5]["bits_per_byte"].is_null());
  EXPECT_EQ(rows[6]["attention"]["first_token"][1][2].get<float>(), attention(4).statistics[11]);
  EXPECT_TRUE(rows[8]["loss"].is_null());
  const LastMetrics last = read_last_metrics(file);  // neither attention nor restarts count
  EXPECT_EQ(last.step->step, 5);
  EXPECT_TRUE(std::isnan(last.step->loss));
  EXPECT_EQ(last.evaluation->step, 4);
  EXPECT_EQ(last.evaluation->validation_loss, 1.0 / 3);
  EXPECT_EQ(last.evaluation->validation_hash, "h");
}

TEST_F(MetricsLogTest, ALogThatEndsAnywhereIsRead) {
  {
    MetricsLog log(file, 0);
    log.write(step(1));
    log.write(EvaluationMetrics{1, 2, 3, 10, "h"});
    log.write(attention(1));
    log.write(RestartMetrics{1});
    log.write(step(2));
  }
  const std::string whole = contents();
  for (std::size_t length = 0; length <= whole.size(); ++length) {
    const std::string text = whole.substr(0, length);
    std::ofstream(file, std::ios::trunc) << text;
    const auto lines = std::size_t(std::count(text.begin(), text.end(), '\n'));
    const LastMetrics last = read_last_metrics(file);
    EXPECT_EQ(last.step ? last.step->step : 0, lines == 5 ? 2 : lines == 0 ? 0 : 1) << length;
    EXPECT_EQ(last.evaluation.has_value(), lines >= 2) << length;
  }
}

TEST_F(MetricsLogTest, LineEndsOfOtherSystems) {
  {
    MetricsLog log(file, 0);
    for (long s = 1; s <= 3; ++s) log.write(step(s));
    log.write(EvaluationMetrics{3, 2, 3, 10, "h"});
    log.write(RestartMetrics{3});
  }
  std::string text;
  for (const char c : contents()) text += c == '\n' ? std::string("\r\n") : std::string(1, c);
  std::ofstream(file, std::ios::trunc) << text;
  const LastMetrics last = read_last_metrics(file);
  ASSERT_TRUE(last.step && last.evaluation);
  EXPECT_EQ(last.step->step, 3);
  EXPECT_EQ(last.evaluation->validation_loss, 2);
}

TEST_F(MetricsLogTest, BestOfTheSameValidationTokens) {
  MetricsLog log(file, 0);
  EXPECT_FALSE(read_last_metrics(file).best.has_value());
  log.write(EvaluationMetrics{10, 1.5, 1, 10, "small"});
  log.write(EvaluationMetrics{20, 1.25, 1, 10, "small"});
  log.write(EvaluationMetrics{30, 1.25, 1, 10, "small"});
  log.write(EvaluationMetrics{40, std::nan(""), 1, 10, "small"});
  EXPECT_EQ(read_last_metrics(file).best->step, 20);
  EXPECT_FALSE(read_last_metrics(file).best_on_another_set.has_value());
  log.write(EvaluationMetrics{50, 2.5, 1, 20, "large"});
  log.write(EvaluationMetrics{60, 2.25, 1, 20, "large"});
  log.write(EvaluationMetrics{70, 2.75, 1, 20, "large"});
  const LastMetrics last = read_last_metrics(file);
  EXPECT_EQ(last.evaluation->step, 70);
  EXPECT_EQ(last.best->step, 60);
  EXPECT_EQ(last.best_on_another_set->step, 20);
  std::ofstream(file, std::ios::app) << "{\"step\":80,\"validation_loss\":1,\"edited\":true}\n";
  EXPECT_EQ(read_last_metrics(file).evaluation->step, 70);
}

TEST_F(MetricsLogTest, StepTimesAreThoseOfTheRates) {
  EXPECT_TRUE(read_step_times(file).empty());
  {
    MetricsLog log(file, 0);
    for (long s = 1; s <= 3; ++s) log.write(step(s));  // 100 tokens each, 12.5 in a second
    log.write(EvaluationMetrics{3, 2, 3, 10, "h"});
    log.write(StepMetrics{4, 1, 1e-3, 1, 400, 50});
    log.write(StepMetrics{5, 1, 1e-3, 1, 500, std::nan("")});
    log.write(StepMetrics{6, 1, 1e-3, 1, 800, 50});  // of a batch that has grown
  }
  std::ofstream(file, std::ios::app) << "{\"step\":7,\"loss\":1}\n{\"step\":8,\"lo";
  const auto times = read_step_times(file);
  ASSERT_EQ(times.size(), 5u);
  EXPECT_EQ(times[4].seconds, 6);
  EXPECT_EQ(times[2].step, 3);
  EXPECT_EQ(times[2].seconds, 8);
  EXPECT_EQ(times[3].seconds, 2);
}

TEST_F(MetricsLogTest, WhatCannotBeReadIsNotMissing) {
  EXPECT_FALSE(read_last_metrics(file).step.has_value());
  fs::create_symlink("metrics.jsonl", file);
  EXPECT_THROW(read_last_metrics(file), DataError);
  fs::remove(file);
  fs::create_directory(file);
  EXPECT_THROW(read_last_metrics(file), DataError);
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
