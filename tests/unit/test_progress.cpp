// SPDX-License-Identifier: Apache-2.0
#include "train/progress.hpp"

#include <gtest/gtest.h>

namespace dekoder {
namespace {

TEST(Progress, RateIsThatOfTheStepsSinceTheLineBefore) {
  // A terminal line is due every 0.2 s of wall time, so none is shown here until the last step.
  Progress progress(10, 20, [](long steps) { return 1000.0 * double(steps); }, false);
  for (long step = 11; step <= 14; ++step) progress.step_done(step, 2.5, 2.0);
  EXPECT_NE(progress.line(14, 2.5).find("step 14/20  loss 2.5000  500 tokens/s  0:12 to go"), std::string::npos)
      << progress.line(14, 2.5);
  progress.set_validation_loss(3.25);
  progress.step_done(20, 2.5, 8.0);  // the last step is shown: the next rate counts from here
  EXPECT_NE(progress.line(20, 2.5).find("validation 3.2500"), std::string::npos) << progress.line(20, 2.5);
  EXPECT_NE(progress.line(20, 2.5).find(" 0 tokens/s"), std::string::npos) << progress.line(20, 2.5);
}

TEST(Progress, WithoutStepsThereIsNoRate) {
  const Progress progress(0, 20, [](long steps) { return 1000.0 * double(steps); }, false);
  EXPECT_NE(progress.line(0, 2.5).find("0 tokens/s  ? to go"), std::string::npos) << progress.line(0, 2.5);
}

}  // namespace
}  // namespace dekoder
