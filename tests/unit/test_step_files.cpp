// SPDX-License-Identifier: Apache-2.0
// Which files of a folder belong to a step: no more than those that the program names so itself.
#include "io/run/step_files.hpp"

#include <gtest/gtest.h>

#include <chrono>

#include "base/error.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing_support::message_of;
using testing_support::ScratchFolder;

const std::vector<std::string> names_of_no_step = {"ckpt-0000020.h5",
                                                   "ckpt-000000020.h5",
                                                   "ckpt--0000020.h5",
                                                   "ckpt-+0000020.h5",
                                                   "ckpt-.h5",
                                                   "ckpt-00000020",
                                                   "ckpt-00000020.h5.x",
                                                   "ckpt-00000020.h5x",
                                                   "ckpt-00000020h5",
                                                   "ckpt-0000002x.h5",
                                                   "step-00000020.h5",
                                                   "xckpt-00000020.h5",
                                                   ".ckpt-00000020.h5",
                                                   "00000020.h5",
                                                   "ckpt-",
                                                   "ckpt-00000020 .h5",
                                                   "ckpt- 00000020.h5",
                                                   "ckpt-00000020.H5",
                                                   "",
                                                   "ckpt-99999999999999999999.h5",
                                                   "ckpt-00000020.h5.corrupt"};

TEST(StepFiles, ANameIsThatOfOneStepOrOfNone) {
  EXPECT_EQ(step_file_name("ckpt-", 20), "ckpt-00000020.h5");
  for (const long step : {0L, 7L, 99'999'999L, 100'000'000L, 9'223'372'036'854'775'807L})
    EXPECT_EQ(step_of_file(fs::path("folder") / step_file_name("ckpt-", step), "ckpt-"), step);
  for (const std::string& name : names_of_no_step) EXPECT_EQ(step_of_file(name, "ckpt-"), -1) << name;
}

TEST(StepFiles, AreListedFromTheNewest) {
  const ScratchFolder scratch("step-files");
  EXPECT_TRUE(list_step_files(scratch / "missing", "ckpt-").empty());
  const fs::path file = scratch.write("file", "");
  EXPECT_EQ(
      message_of<ReadError>([&] { list_step_files(file, "ckpt-"); }).find(file.string() + ": cannot be listed"),
      0u);
  for (const std::string& name : names_of_no_step)
    if (!name.empty()) scratch.write(name, "");
  std::vector<fs::path> expected;
  for (const long step : {123'456'789L, 40L, 9L, 8L, 0L})
    expected.push_back(scratch / step_file_name("ckpt-", step));
  for (const std::size_t i : {2, 0, 4, 1, 3}) scratch.write(expected[i].filename().string(), "");
  EXPECT_EQ(list_step_files(scratch.path(), "ckpt-"), expected);
}

TEST(StepFiles, OnlyLeftOversOfThePrefixAreRemoved) {
  const ScratchFolder scratch("step-left-over");
  remove_left_over(scratch / "missing", "ckpt-");
  std::vector<std::string> stay = {"ckpt-00000020.h5",       "ckpt-00000020.h5.tmp", ".step-00000020.h5.tmp",
                                   ".ckpt-0000020.h5.tmp",   ".ckpt-00000020.tmp",   ".ckpt-00000020.h5",
                                   ".ckpt-00000020.h5.tmpx", ".ckpt-notes.h5.tmp"};
  for (const std::string& name : stay) scratch.write(name, "");
  const std::vector<std::string> go = {".ckpt-00000000.h5.tmp", ".ckpt-00000020.h5.tmp", ".ckpt-123456789.h5.tmp",
                                       ".dekoder-of-another-day.tmp"};
  for (const std::string& name : go) scratch.write(name, "");
  fs::last_write_time(scratch / go.back(), fs::file_time_type::clock::now() - std::chrono::hours(25));
  testing::internal::CaptureStderr();
  remove_left_over(scratch.path(), "ckpt-");
  const std::string said = testing::internal::GetCapturedStderr();
  for (const std::string& name : stay) EXPECT_TRUE(fs::exists(scratch / name)) << name;
  for (const std::string& name : go) {
    EXPECT_FALSE(fs::exists(scratch / name)) << name;
    EXPECT_NE(said.find("removed " + (scratch / name).string() + ", left by a writer that did not finish"),
              std::string::npos)
        << said;
  }
}

}  // namespace
}  // namespace dekoder
