// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>

#include "train/optimizer.hpp"

namespace dekoder {
namespace {

TrainingConfig schedule_of(Schedule schedule, long steps, long warmup, double decay_fraction = 0.2) {
  TrainingConfig training;
  training.schedule = schedule;
  training.steps = steps;
  training.warmup_steps = warmup;
  training.decay_fraction = decay_fraction;
  return training;  // from 1e-3 to 1e-4
}

constexpr Schedule schedules[] = {Schedule::constant, Schedule::linear, Schedule::cosine, Schedule::wsd,
                                  Schedule::inverse_sqrt};

/// From the end of the warm-up on, no step falls by more than the steepest slope of the schedule, and none rises.
TEST(LearningRate, EverySchedulePassesWithoutAJump) {
  for (const Schedule schedule : schedules)
    for (const long warmup : {0, 1, 50, 98, 150, 198})
      for (const double fraction : {0.05, 0.2, 0.5, 0.9, 1.0}) {
        const TrainingConfig training = schedule_of(schedule, 201, warmup, fraction);
        const bool decays = schedule != Schedule::constant && schedule != Schedule::inverse_sqrt;
        const double decay_steps = schedule == Schedule::wsd ? std::min(fraction * 201, 201 - double(warmup))
                                                             : (200 - double(warmup)) / 1.58;  // pi / 2: cosine
        const double steepest = decays                           ? 9.001e-4 / decay_steps
                                : schedule == Schedule::constant ? 0
                                                                 : 0.6e-3 / double(std::max(warmup, 1L));
        for (long step = std::max(warmup, 1L); step < training.steps; ++step) {
          const double fall = learning_rate(training, step - 1) - learning_rate(training, step);
          ASSERT_GE(fall, -1e-18) << int(schedule) << " step " << step << " warm-up " << warmup << " " << fraction;
          ASSERT_LE(fall, steepest) << int(schedule) << " step " << step << " warm-up " << warmup << " "
                                    << fraction;
        }
        if (decays) {
          EXPECT_NEAR(learning_rate(training, 200), 1e-4, 1e-12) << warmup << " " << fraction;
        }
      }
}

TEST(LearningRate, TheDecayOfWsdBeginsAfterTheWarmUp) {
  const TrainingConfig whole = schedule_of(Schedule::wsd, 1000, 100, 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(whole, 99), 1e-3);
  EXPECT_NEAR(learning_rate(whole, 100), 1e-3 - 9e-4 / 900, 1e-15);
  EXPECT_NEAR(learning_rate(whole, 549), 5.5e-4, 1e-15);
  // Where it begins later anyway, the fraction alone says where.
  const TrainingConfig usual = schedule_of(Schedule::wsd, 1000, 100, 0.2);
  EXPECT_EQ(learning_rate(usual, 799), 1e-3);
  EXPECT_EQ(learning_rate(usual, 800), 1e-3 + (1e-4 - 1e-3) * (1.0 / 200));
  const TrainingConfig no_warmup = schedule_of(Schedule::wsd, 1000, 0, 1.0);
  EXPECT_EQ(learning_rate(no_warmup, 0), 1e-3 + (1e-4 - 1e-3) * (1.0 / 1000));
}

TEST(LearningRateJump, UnchangedSettingsNeverJump) {
  for (const Schedule schedule : schedules)
    for (const long warmup : {0, 1, 2, 100})
      for (const double decay : {0.0, 0.005, 0.2, 1.0}) {
        const TrainingConfig training = schedule_of(schedule, 300, warmup, decay);
        for (long step = 0; step <= training.steps; ++step)
          ASSERT_FALSE(learning_rate_jump(training, training, step).has_value())
              << int(schedule) << " step " << step << " warm-up " << warmup << " decay " << decay;
      }
}

TEST(LearningRateJump, AFinishedDecayThatGoesOnJumps) {
  for (const Schedule schedule : {Schedule::linear, Schedule::cosine, Schedule::wsd}) {
    const auto jump = learning_rate_jump(schedule_of(schedule, 2200, 100), schedule_of(schedule, 6000, 100), 2200);
    ASSERT_TRUE(jump.has_value()) << int(schedule);
    EXPECT_NEAR(jump->last, 1e-4, 1e-12);
    EXPECT_GT(jump->next, 6e-4);
  }
  for (const Schedule schedule : {Schedule::constant, Schedule::inverse_sqrt})
    EXPECT_FALSE(
        learning_rate_jump(schedule_of(schedule, 2200, 100), schedule_of(schedule, 6000, 100), 2200).has_value());
}

TEST(LearningRateJump, WsdGoesOnFromItsPlateau) {
  const TrainingConfig before = schedule_of(Schedule::wsd, 2200, 100), now = schedule_of(Schedule::wsd, 6000, 100);
  for (const long step : {50, 101, 1000, 1760})
    EXPECT_FALSE(learning_rate_jump(before, now, step).has_value()) << step;
  EXPECT_TRUE(learning_rate_jump(before, now, 1900).has_value());
  EXPECT_TRUE(learning_rate_jump(now, before, 3000).has_value());  // cut short: at once at the final rate
}

TEST(LearningRateJump, AnotherPeakJumpsAndATouchOfItDoesNot) {
  const TrainingConfig before = schedule_of(Schedule::constant, 1000, 100);
  TrainingConfig now = before;
  now.learning_rate = 2e-3;
  const auto jump = learning_rate_jump(before, now, 500);
  ASSERT_TRUE(jump.has_value());
  EXPECT_EQ(jump->last, 1e-3);
  EXPECT_EQ(jump->next, 2e-3);
  EXPECT_TRUE(learning_rate_jump(now, before, 500).has_value());
  EXPECT_TRUE(learning_rate_jump(before, now, 50).has_value());  // in the warm-up, which doubles
  EXPECT_FALSE(learning_rate_jump(before, now, 0).has_value());  // nothing was done yet
  now.learning_rate = 1.04e-3;
  EXPECT_FALSE(learning_rate_jump(before, now, 500).has_value());
}

TEST(LearningRateJump, IsMoreThanTwoStepsOfEitherSchedule) {
  TrainingConfig warm_up = schedule_of(Schedule::constant, 1000, 8),
                 plateau = schedule_of(Schedule::constant, 1000, 0);
  warm_up.learning_rate = 16;  // 2 (t + 1) at step t: 8 before step 4, 10 at it
  const auto from_warm_up = [&](double next) {
    plateau.learning_rate = next;
    return learning_rate_jump(warm_up, plateau, 4).has_value();
  };
  EXPECT_FALSE(from_warm_up(8 + 3));
  EXPECT_FALSE(from_warm_up(8 + 4));
  EXPECT_TRUE(from_warm_up(8 + 5));
  const auto to_warm_up = [&](double last) {
    plateau.learning_rate = last;
    return learning_rate_jump(plateau, warm_up, 4).has_value();
  };
  EXPECT_FALSE(to_warm_up(10 + 3));
  EXPECT_FALSE(to_warm_up(10 + 4));
  EXPECT_TRUE(to_warm_up(10 + 5));
}

TEST(LearningRateJump, IsMoreThanFivePercentOfTheLargerRate) {
  TrainingConfig before = schedule_of(Schedule::constant, 1000, 0), now = before;
  const auto jumps = [&](double last, double next) {
    before.learning_rate = last;
    now.learning_rate = next;
    return learning_rate_jump(before, now, 500).has_value();
  };
  EXPECT_FALSE(jumps(20, 19) || jumps(19, 20));
  EXPECT_TRUE(jumps(20, 18.9) && jumps(18.9, 20));
}

}  // namespace
}  // namespace dekoder
