// SPDX-License-Identifier: Apache-2.0
#include "train/job_time.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>

#include "base/process_space.hpp"
#include "config/time_left.hpp"

namespace dekoder {
namespace {

constexpr auto nothing_due = [](Work) { return false; };

double needed(const JobTime& time, std::initializer_list<Work> due = {}) {
  return time.needed([&](Work work) { return std::find(due.begin(), due.end(), work) != due.end(); });
}

TEST(JobTime, WhatIsNeededFollowsWhatWasMeasured) {
  JobTime time(1000, {7, 20});
  EXPECT_DOUBLE_EQ(needed(time), 10 + 2 * 7);
  time.took(Work::step, 4);
  time.took(Work::step, 2);
  EXPECT_DOUBLE_EQ(needed(time), 10 + 1.5 * 4 + 2 * 7);
  EXPECT_DOUBLE_EQ(needed(time, {Work::evaluation}), 30 + 20 * 4) << "guessed from the steps";
  EXPECT_DOUBLE_EQ(needed(time, {Work::sample, Work::attention}), 30);
  time.took(Work::save, 3);
  time.took(Work::save, 2);
  time.took(Work::evaluation, 11);
  time.took(Work::sample, 0.5);
  time.took(Work::attention, 0.25);
  EXPECT_DOUBLE_EQ(needed(time), 10 + 1.5 * 4 + 2 * 3);
  EXPECT_DOUBLE_EQ(needed(time, {Work::evaluation, Work::sample, Work::attention}), 22 + 11.75);
  EXPECT_NE(
      time.text(959).find("0:41 of the job's time are left: a step takes up to 4.00 s, an evaluation 11.00 s, a "
                          "save 3.00 s, and 10 s"),
      std::string::npos)
      << time.text(959);
  for (int i = 0; i < 64; ++i) time.took(Work::step, 1);
  EXPECT_DOUBLE_EQ(needed(time), 10 + 1.5 + 2 * 3) << "of a slow beginning nothing is left";
}

TEST(JobTime, IsUpBeforeAStepThatWouldNotFit) {
  JobTime time(1000, {7, 20});
  EXPECT_FALSE(time.is_up(999, nothing_due)) << "one step is done by every start";
  time.took(Work::step, 2);
  EXPECT_FALSE(time.is_up(972.9, nothing_due));
  EXPECT_TRUE(time.is_up(973.1, nothing_due));
  EXPECT_TRUE(time.is_up(972.9, [](Work work) { return work == Work::evaluation; }));
  JobTime without({}, {7, 20});
  without.took(Work::step, 2);
  EXPECT_FALSE(without.is_up(1e12, nothing_due));
}

TEST(JobTime, TheEndIsThatOfTheWordOrOfTheVariable) {
  const double now = double(std::time(nullptr));
  ::unsetenv("SLURM_JOB_END_TIME");
  EXPECT_FALSE(job_end({}).has_value());
  EXPECT_NEAR(job_end(100.0).value(), now - process_age() + 100, 2);
  ::setenv("SLURM_JOB_END_TIME", std::to_string(std::time(nullptr) + 500).c_str(), 1);
  EXPECT_NEAR(job_end({}).value(), now + 500, 2);
  EXPECT_NEAR(job_end(100.0).value(), now - process_age() + 100, 2);
  ::setenv("SLURM_JOB_END_TIME", std::to_string(std::time(nullptr) - 1).c_str(), 1);
  ::testing::internal::CaptureStderr();
  EXPECT_FALSE(job_end({}).has_value()) << "of a job that has ended";
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("warning: SLURM_JOB_END_TIME"), std::string::npos);
  ::unsetenv("SLURM_JOB_END_TIME");
}

TEST(JobTime, ProcessAgeGrows) {
  const double age = process_age();
  EXPECT_GT(age, 0);
  EXPECT_LT(age, 3600);
  const timespec pause = {0, 50'000'000};
  ::nanosleep(&pause, nullptr);
  EXPECT_GT(process_age(), age + 0.04);
}

TEST(TimeLeft, ReadsWhatSqueuePrints) {
  const std::pair<const char*, double> times[] = {
      {"0:00", 0},          {"5", 300},      {"00:41", 41},       {"75:30", 4530},       {"1:02:03", 3723},
      {"36:00:00", 129600}, {"2-3", 183600}, {"2-03:04", 183840}, {"0-23:59:59", 86399}, {"10-00:00:01", 864001}};
  for (const auto& [text, seconds] : times) {
    std::optional<double> read;
    EXPECT_EQ(read_time_left(text, read), "") << text;
    ASSERT_TRUE(read.has_value()) << text;
    EXPECT_EQ(*read, seconds) << text;
  }
  std::optional<double> unlimited;
  EXPECT_EQ(read_time_left("UNLIMITED", unlimited), "");
  EXPECT_EQ(unlimited, std::numeric_limits<double>::infinity());
  for (const char* text : {"NOT_SET", "INVALID"}) {
    std::optional<double> read = 1;
    EXPECT_EQ(read_time_left(text, read), "") << text;
    EXPECT_FALSE(read.has_value()) << text;
  }
}

TEST(TimeLeft, RefusesOtherTexts) {
  for (const char* text : {"", "x", "1:", ":1", "1:60", "1:60:00", "1:00:60", "1-24", "1-00:60", "1:2:3:4", "-5",
                           "1--5", "1-2-3", "1.5", " 5", "99999999999999999999", "40000-00", "1-", "unlimited"}) {
    std::optional<double> read;
    EXPECT_NE(read_time_left(text, read), "") << text;
    EXPECT_FALSE(read.has_value()) << text;
  }
}

}  // namespace
}  // namespace dekoder
