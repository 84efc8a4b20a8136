// SPDX-License-Identifier: Apache-2.0
#include "io/run/triggers.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

class TriggersTest : public ::testing::Test {
 protected:
  void put(const char* name) const { std::ofstream(scratch.path() / name) << ""; }
  bool there(const char* name) const { return fs::exists(fs::symlink_status(scratch.path() / name)); }

  testing_support::ScratchFolder scratch{"triggers"};
  TriggerFiles files{scratch.path()};
  TriggerFiles::Clock::time_point begin = TriggerFiles::Clock::now();
};

TEST_F(TriggersTest, EachIsTakenOnce) {
  EXPECT_EQ(files.take(begin), 0);
  put("evaluate_now");
  put("stop");
  put("stop_now");
  EXPECT_EQ(files.take(begin + milliseconds(1000)), evaluate_now | stop_file);
  EXPECT_FALSE(there("evaluate_now") || there("stop"));
  EXPECT_TRUE(there("stop_now"));
  put("checkpoint_now");
  put("attention_now");
  EXPECT_EQ(files.take(begin + milliseconds(2000)), checkpoint_now | attention_now);
  EXPECT_EQ(files.take(begin + milliseconds(3000)), 0);
}

TEST_F(TriggersTest, LooksOnceASecond) {
  put("stop");
  EXPECT_EQ(files.take(begin), stop_file);
  put("stop");
  EXPECT_EQ(files.take(begin + milliseconds(999)), 0);
  EXPECT_TRUE(there("stop"));
  EXPECT_EQ(files.take(begin + milliseconds(1000)), stop_file);
}

TEST_F(TriggersTest, OneThatCannotBeRemovedIsIgnoredWithOneWarning) {
  fs::create_directory(scratch.path() / "stop");
  fs::create_symlink("nowhere", scratch.path() / "evaluate_now");
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(files.take(begin), evaluate_now);
  EXPECT_EQ(files.take(begin + milliseconds(1000)), 0);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(there("stop"));
  const std::size_t warning = said.find("stop: ignored, as it cannot be removed: Is a directory");
  ASSERT_NE(warning, std::string::npos) << said;
  EXPECT_EQ(said.find("ignored", warning + 10), std::string::npos) << said;
}

}  // namespace
}  // namespace dekoder
