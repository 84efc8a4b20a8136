// SPDX-License-Identifier: Apache-2.0
// The folder attention/ of a run over kills and restarts: which files a start keeps, removes or puts aside.
#include "io/run/attention_folder.hpp"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdlib>

#include "io/run/attention_reader.hpp"
#include "support/attention_maps.hpp"
#include "support/disk_calls.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using namespace testing_support;
using Steps = std::set<long>;
using Names = std::vector<std::string>;

class AttentionFolderTest : public testing::Test {
 protected:
  AttentionFolder opened(long kept_step) const { return AttentionFolder(folder(), info_, kept_step); }
  void write_steps(const Steps& steps) const {
    AttentionFolder writer = opened(-1);
    for (const long step : steps) writer.write(step, maps_of(info_, step));
  }
  /// Expects the files of these steps, whole, and nothing else.
  void expect_steps(const Steps& steps) const {
    Names expected;
    for (const long step : steps) {
      expected.push_back(attention_file_name(step));
      expect_whole(file(step), info_, step);
    }
    EXPECT_EQ(names(), expected);
  }
  fs::path folder() const { return scratch_ / "attention"; }
  fs::path file(long step) const { return folder() / attention_file_name(step); }
  Names names() const { return names_in(folder()); }

  ScratchFolder scratch_{"attention-folder"};
  AttentionFileInfo info_ = small_info();
};

TEST_F(AttentionFolderTest, HasAFilePerStep) {
  EXPECT_EQ(attention_file_name(500), "step-00000500.h5");
  EXPECT_EQ(attention_file_name(123456789), "step-123456789.h5");
  EXPECT_EQ(opened(-1).steps(), Steps{});
  EXPECT_FALSE(fs::exists(folder())) << "made before there is something to hold";
  write_steps({0, 40, 123456789});
  expect_steps({0, 40, 123456789});
}

TEST_F(AttentionFolderTest, GoesOnWithWhatIsThere) {
  write_steps({0, 40});
  const auto written = fs::last_write_time(file(40));
  AttentionFolder writer = opened(50);
  EXPECT_TRUE(writer.has(0) && writer.has(40));
  EXPECT_FALSE(writer.has(50) || writer.has(-1));
  EXPECT_THROW(writer.write(40, maps_of(info_, 40)), std::logic_error);
  info_.config_yaml = "train:\n  steps: 9000\n";  // what a restart may change
  info_.writer = "another backend";
  AttentionFolder again = opened(50);
  again.write(80, maps_of(info_, 80));
  EXPECT_EQ(again.steps(), (Steps{0, 40, 80}));
  expect_steps({0, 40, 80});
  EXPECT_EQ(fs::last_write_time(file(40)), written);
  EXPECT_EQ(AttentionReader(file(40)).info().config_yaml, small_info().config_yaml);
  EXPECT_EQ(AttentionReader(file(80)).info().config_yaml, info_.config_yaml);
}

TEST_F(AttentionFolderTest, StepsOfAnAbandonedFutureAreGone) {
  write_steps({0, 40, 80, 120, 160});
  EXPECT_EQ(opened(40).steps(), (Steps{0, 40}));
  expect_steps({0, 40});
  EXPECT_EQ(opened(-1).steps(), Steps{});
  expect_steps({});
}

TEST_F(AttentionFolderTest, WhatIsKeptIsKnownWithoutAChange) {
  EXPECT_EQ(kept_attention(folder(), info_, 100).steps, Steps{});
  write_steps({0, 40, 80});
  EXPECT_EQ(kept_attention(folder(), info_, 100).steps, (Steps{0, 40, 80}));
  EXPECT_EQ(kept_attention(folder(), info_, 79).steps, (Steps{0, 40}));
  EXPECT_EQ(kept_attention(folder(), info_, 79).bytes, fs::file_size(file(0)) + fs::file_size(file(40)));
  EXPECT_EQ(kept_attention(folder(), info_, -1).steps, Steps{});
  EXPECT_EQ(kept_attention(folder(), info_, -1).bytes, 0u);
  AttentionFileInfo other = info_;
  other.heads.pop_back();
  EXPECT_EQ(kept_attention(folder(), other, 79).steps, Steps{});
  EXPECT_EQ(kept_attention(folder(), other, 79).bytes, fs::file_size(file(0)) + fs::file_size(file(40)))
      << "they stay and take their place";
  expect_steps({0, 40, 80});
}

TEST_F(AttentionFolderTest, WhatIsMadeAndRemovedReachesTheDisk) {
  const auto synced = [](const fs::path& path) {
    return std::count(synced_paths.begin(), synced_paths.end(), fs::canonical(path));
  };
  AttentionFolder writer = opened(-1);
  for (const long step : {0, 40}) {
    synced_paths.clear();
    writer.write(step, maps_of(info_, step));
    EXPECT_EQ(synced(scratch_.path()), step == 0 ? 1 : 0) << "the folder is made once";
    EXPECT_EQ(synced(folder()), 1) << "a file each";
  }
  synced_paths.clear();
  opened(40);
  EXPECT_EQ(synced(folder()), 0) << "nothing is changed";
  opened(20);
  EXPECT_EQ(synced(folder()), 1) << "a file is removed";
}

TEST_F(AttentionFolderTest, AFolderThatCannotBeMadeIsNamed) {
  AttentionFolder writer = opened(-1);
  scratch_.write("attention", "a file");
  const std::string said = message_of<SaveError>([&] { writer.write(40, maps_of(info_, 40)); });
  EXPECT_TRUE(said.starts_with("attention maps of step 40 are not saved: ")) << said;
  EXPECT_TRUE(said.ends_with("[" + folder().string() + "]")) << said;
  EXPECT_FALSE(writer.has(40));
  fs::remove(folder());
  writer.write(40, maps_of(info_, 40));
  expect_steps({40});
}

TEST_F(AttentionFolderTest, ManyProbesAreTheSameInAnyOrder) {
  info_.probes.clear();
  for (int i = 0; i < 12; ++i)  // a file lists text_10 before text_2
    info_.probes.push_back(probe_of("text_" + std::to_string(i), "configuration", {std::to_string(i)}));
  write_steps({0});
  EXPECT_EQ(opened(0).steps(), Steps{0});
  EXPECT_EQ(kept_attention(folder(), info_, 0).steps, Steps{0});
}

TEST_F(AttentionFolderTest, FilesOfOtherProbesStayButDoNotCount) {
  AttentionFileInfo layers = info_, heads = info_, text = info_, fewer = info_, statistics = info_;
  layers.layers = {0, 1};
  heads.heads = {1, 3};
  text.probes[1].token_texts[2] = text.probes[1].text = "z";
  fewer.probes.pop_back();
  statistics.statistic_names.pop_back();
  for (const AttentionFileInfo& other : {layers, heads, text, fewer, statistics}) {
    info_ = small_info();
    write_steps({0, 40, 80});
    const std::string before = contents_of(file(40));
    info_ = other;
    AttentionFolder writer = opened(40);
    EXPECT_EQ(writer.steps(), Steps{});
    EXPECT_EQ(names(), (Names{"step-00000000.h5", "step-00000040.h5"})) << "step 80 is repeated";
    testing::internal::CaptureStderr();
    writer.write(40, maps_of(info_, 40));
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find("renamed to step-00000040.h5.aside-"), std::string::npos) << said;
    expect_whole(file(40), info_, 40);
    expect_whole(file(0), small_info(), 0);
    EXPECT_EQ(contents_of(file(40).string() + ".aside-1"), before);
    fs::remove_all(folder());
  }
}

TEST_F(AttentionFolderTest, ASymbolicLinkStays) {
  fs::create_directory(scratch_ / "other disk");
  fs::create_symlink("other disk/maps", folder());
  write_steps({0, 40});  // where the link leads there is nothing yet
  EXPECT_EQ(opened(0).steps(), Steps{0});
  EXPECT_TRUE(fs::is_symlink(folder()));
  EXPECT_EQ(names_in(scratch_ / "other disk/maps"), Names{"step-00000000.h5"});
}

TEST_F(AttentionFolderTest, WhatIsNoFolderIsNamed) {
  const auto expect_refused = [&](const std::string& what) {
    for (const std::string& said :
         {message_of<ConfigError>([&] { opened(-1); }), message_of<ConfigError>([&] { opened(40); }),
          message_of<ConfigError>([&] { kept_attention(folder(), info_, 40); })})
      EXPECT_TRUE(said.starts_with(folder().string() + ": " + what)) << said;
    EXPECT_EQ(kept_attention(folder(), info_, -1).bytes, 0u) << "a --fresh moves it away";
    EXPECT_TRUE(fs::remove(folder())) << "it was changed";
  };
  scratch_.write("attention", "text");
  expect_refused("is a file, expected a folder");
  fs::create_symlink("/dev/null", folder());
  expect_refused("is a device, expected a folder");
  ASSERT_EQ(::mkfifo(folder().c_str(), 0600), 0);
  expect_refused("is a FIFO, expected a folder");
  fs::create_symlink("no disk/maps", folder());
  expect_refused("cannot be made: No such file or directory: it is a symbolic link to " +
                 (scratch_ / "no disk/maps").string());
  fs::create_symlink("attention", folder());
  expect_refused("its symbolic links lead back to themselves");
}

TEST_F(AttentionFolderTest, AKillLeavesWholeFilesAndATemporaryOne) {
  for (const std::string point : {"mid_write", "before_rename", "after_rename"}) {
    SCOPED_TRACE(point);
    write_steps({0, 40});
    const int status = in_child([&] {
      ::setenv("DEKODER_FAULT", ("attention:" + point).c_str(), 1);
      opened(100).write(80, maps_of(info_, 80));
      return 0;
    });
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
    Steps expected = {0, 40};
    if (point == "after_rename") expected.insert(80);
    std::size_t temporary = 0;
    for (const std::string& name : names()) temporary += name.ends_with(".tmp");
    EXPECT_EQ(temporary, point == "after_rename" ? 0u : 1u);
    AttentionFolder writer = opened(100);
    EXPECT_EQ(writer.steps(), expected);
    expect_steps(expected);
    if (!writer.has(80)) writer.write(80, maps_of(info_, 80));
    expect_steps({0, 40, 80});
  }
}

TEST_F(AttentionFolderTest, WhatIsDamagedOrOfAnotherRunIsPutAside) {
  write_steps({40});
  const std::string good = contents_of(file(40));
  AttentionFileInfo other = info_;
  other.run_id = "other";
  const fs::path elsewhere = scratch_ / "elsewhere.h5";
  write_attention_file(elsewhere, other, 40, maps_of(other, 40));
  const std::string of_another_run = contents_of(elsewhere);
  write_attention_file(elsewhere, info_, 41, maps_of(info_, 41));
  const std::string of_another_step = contents_of(elsewhere);
  const std::string flipped = [&] {  // in the middle of compressed maps
    std::string bytes = good;
    for (std::size_t at = bytes.size() - 200;; at -= 50) {
      bytes[at] = static_cast<char>(bytes[at] ^ 0x55);
      scratch_.write("elsewhere.h5", bytes);
      const std::string reason = message_of<DataError>([&] { AttentionReader(elsewhere).verify(); });
      if (reason.find("Fletcher32") != std::string::npos) return bytes;
      bytes[at] = static_cast<char>(bytes[at] ^ 0x55);
    }
  }();
  {
    Hdf5File file = Hdf5File::create(elsewhere);
    file.write<float>("/x", std::vector<float>{1});
    file.close();
  }
  const std::string foreign = contents_of(elsewhere);
  struct Case {
    std::string reason, bytes;
  };
  const std::vector<Case> cases = {{"is of another run", of_another_run},
                                   {"holds step 41, not that of its name", of_another_step},
                                   {"truncated", good.substr(0, good.size() / 2)},
                                   {"Fletcher32", flipped},
                                   {"no attention maps", foreign},
                                   {"cannot be opened", "text"},
                                   {"cannot be opened", ""}};
  int number = 0;
  for (const Case& each : cases) {
    SCOPED_TRACE(each.reason);
    scratch_.write("attention/step-00000040.h5", each.bytes);
    testing::internal::CaptureStderr();
    AttentionFolder writer = opened(100);
    const std::string said = testing::internal::GetCapturedStderr();
    const std::string aside = "step-00000040.h5.aside-" + std::to_string(++number);
    EXPECT_NE(said.find("warning: "), std::string::npos) << said;
    EXPECT_NE(said.find(each.reason), std::string::npos) << said;
    EXPECT_NE(said.find(aside), std::string::npos) << said;
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
    EXPECT_EQ(contents_of(folder() / aside), each.bytes) << "the old file is not kept as it was";
    EXPECT_EQ(writer.steps(), Steps{});
    writer.write(40, maps_of(info_, 40));
    expect_whole(file(40), info_, 40);
  }
}

TEST_F(AttentionFolderTest, WhatCannotBeOpenedNowIsLeftAlone) {
  write_steps({0, 40});
  const int status = in_child([&] {  // root opens everything
    if (::chmod(file(40).c_str(), 0) != 0 || (::geteuid() == 0 && ::seteuid(65534) != 0)) return 1;
    const std::string said = message_of<ReadError>([&] { opened(100); });
    return said.find(file(40).string() + ": cannot be read: Permission denied") != std::string::npos ? 0 : 2;
  });
  EXPECT_EQ(status, 0);
  ::chmod(file(40).c_str(), 0644);
  expect_steps({0, 40});
}

TEST_F(AttentionFolderTest, ADiskThatTakesNothingLeavesTheOldFiles) {
  const int mounted = in_child([&] {
    const std::string disk = scratch_.path().string();
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k") != 0)
      return 77;
    AttentionFolder writer = opened(-1);
    writer.write(0, maps_of(info_, 0));
    const std::string whole = contents_of(file(0));
    std::ofstream(scratch_ / "ballast") << std::string(256 << 10, 'x');
    std::string said = message_of<SaveError>([&] { writer.write(40, maps_of(info_, 40)); });
    if (said.find("free some space") == std::string::npos || writer.has(40)) return 1;
    if (contents_of(file(0)) != whole || names() != Names{"step-00000000.h5"}) return 2;
    if (opened(0).steps() != Steps{0}) return 3;
    fs::remove(scratch_ / "ballast");
    if (::mount(nullptr, disk.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0) return 4;
    said = message_of<SaveError>([&] { writer.write(40, maps_of(info_, 40)); });
    if (said.find("Read-only file system") == std::string::npos) return 5;
    said = message_of<SaveError>([&] { opened(-1); });
    if (said.find("step-00000000.h5: is of a step that will be repeated") == std::string::npos) return 6;
    AttentionFileInfo other = info_;
    other.run_id = "other";
    if (message_of<SaveError>([&] { AttentionFolder(folder(), other, 0); }).empty()) return 7;
    if (::mount(nullptr, disk.c_str(), nullptr, MS_REMOUNT, nullptr) != 0) return 8;
    writer.write(40, maps_of(info_, 40));
    expect_steps({0, 40});
    return 0;
  });
  if (WEXITSTATUS(mounted) == 77) GTEST_SKIP() << "no mount of one's own";
  EXPECT_EQ(WEXITSTATUS(mounted), 0);
}

TEST_F(AttentionFolderTest, ReadersOfARunInProgressSeeWholeFiles) {
  write_steps({0});
  const pid_t child = ::fork();
  if (child == 0) {  // reads over and over until all steps are there
    std::size_t seen = 0;
    while (seen < 26) {
      const Steps steps = kept_attention(folder(), info_, 1000).steps;
      for (const long step : steps) expect_whole(file(step), info_, step);
      if (steps.size() < seen || HasFailure()) ::_exit(1);
      seen = steps.size();
    }
    ::_exit(0);
  }
  AttentionFolder writer = opened(1000);
  for (long step = 1; step <= 25; ++step) writer.write(step, maps_of(info_, step));
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace dekoder
