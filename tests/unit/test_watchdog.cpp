// SPDX-License-Identifier: Apache-2.0
#include "parallel/watchdog.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "tensor/region.hpp"

namespace dekoder {
namespace {

Activity doing(std::vector<std::string> regions, bool waits, std::vector<double> step_seconds) {
  return {std::move(regions), waits, "", 1, std::move(step_seconds)};
}

TEST(Watchdog, IsPatientByWhatGoesOn) {
  const std::vector<double> quick = {1, 1, 100}, slow = {10, 9, 1};  // seconds: medians of 1 and 9
  const struct {
    Activity activity;
    int rank;
    double seconds;
  } cases[] = {
      {doing({"step", "backward"}, false, quick), 1, 60},  // in a step
      {doing({"step", "gradients"}, true, quick), 1, 60},
      {doing({"step"}, true, slow), 0, 180},            // 20 times the median
      {doing({"step"}, true, {}), 1, 600},              // the first step
      {doing({}, true, {}), 0, 600},                    // start
      {doing({}, true, quick), 1, 600},                 // between steps: rank 0 may be saving
      {doing({"save"}, true, slow), 3, 1800},           //
      {doing({"save"}, false, quick), 0, 600},          // rank 0 is saving
      {doing({"step", "save"}, false, quick), 0, 600},  // and after that the run ends within this step
      {doing({"save"}, true, quick), 0, 60},            // it waits for those who do nothing
      {doing({}, true, slow), 0, 180},                  //
      {doing({"evaluate"}, true, quick), 0, 600},       // all have work
      {doing({"evaluate", "step"}, true, quick), 1, 600},
  };
  for (const auto& [activity, rank, seconds] : cases)
    EXPECT_EQ(patience(activity, rank, 60), seconds) << hang_message(activity, rank, 0, 0);
  EXPECT_EQ(patience(doing({"step"}, true, {0.1}), 1, 3), 3);
}

TEST(Watchdog, CountsTheTimeInWhichNothingChanges) {
  using std::chrono::milliseconds;
  QuietTime::TimePoint now{};
  QuietTime quiet(now);
  EXPECT_EQ(quiet.look(7, now += milliseconds(500)), 0);
  EXPECT_EQ(quiet.look(7, now += milliseconds(500)), 0.5);
  EXPECT_EQ(quiet.look(7, now += milliseconds(750)), 1.25);
  EXPECT_EQ(quiet.look(7, now += std::chrono::hours(1)), 3.25) << "the job was suspended";
  EXPECT_EQ(quiet.look(8, now += milliseconds(500)), 0);
  EXPECT_EQ(quiet.look(8, now += milliseconds(500)), 0.5);
}

TEST(Watchdog, SaysWhereAndForWhom) {
  Activity activity = doing({"step", "gradients"}, true, {1});
  activity.waits_for = "rank 2 (bucket 3 of 12 of the gradients)";
  EXPECT_EQ(
      hang_message(activity, 0, 60.4, 60),
      "error: rank 0 is in 'step, gradients' for 60 s without an end (limit 60 s); it waits for rank 2 (bucket "
      "3 of 12 of the gradients): what is waited for hangs, is stopped or cannot be reached. All ranks are "
      "ended; a training goes on from its last checkpoint by the same command");
  EXPECT_TRUE(
      hang_message(doing({"step", "backward", "blocks.03"}, false, {1}), 2, 60, 60)
          .starts_with("error: rank 2 is in 'step, backward, blocks.03' for 60 s without an end (limit 60 s); "
                       "it hangs there"));
  EXPECT_NE(hang_message(doing({}, true, {}), 1, 600, 600).find("'start'"), std::string::npos);
  EXPECT_NE(hang_message(doing({}, true, {1}), 1, 600, 600).find("'between steps'"), std::string::npos);
}

TEST(Watchdog, SeesTheRegionsAndWaitsOfTheThreadThatComputes) {
  const std::uint64_t before = current_activity().changes;
  const std::size_t steps = current_activity().step_seconds.size();
  {
    const Region step("step"), backward("backward");
    std::thread([] {
      const Region of_another_thread("save");
      EXPECT_EQ(current_activity().regions, (std::vector<std::string>{"step", "backward"}));
    }).join();
    const WaitNote wait;
    EXPECT_TRUE(current_activity().waits);
    wait.tell("rank 1 (bucket 1 of 2)");
    EXPECT_EQ(current_activity().waits_for, "rank 1 (bucket 1 of 2)");
    EXPECT_FALSE(wait.given_up());
    EXPECT_EQ(current_activity().changes, before + 3);
  }
  const Activity after = current_activity();
  EXPECT_EQ(after.changes, before + 6);
  EXPECT_TRUE(after.regions.empty() && !after.waits && after.waits_for.empty());
  EXPECT_EQ(after.step_seconds.size(), steps + 1);
}

}  // namespace
}  // namespace dekoder
