// SPDX-License-Identifier: Apache-2.0
// attention.h5: its layout, that a step is whole or absent whatever happens, and what becomes of files that do not
// fit.
#include "io/run/attention_file.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>

#include "io/hdf5/hdf5_file.hpp"
#include "support/scratch_folder.hpp"
#include "tensor/random_stream.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing_support::message_of;
using testing_support::ScratchFolder;
using Steps = std::set<long>;

AttentionProbe probe_of(const std::string& name, const std::string& source, const std::vector<std::string>& texts) {
  AttentionProbe probe{name, source, "", {}, texts};
  for (const std::string& text : texts) {
    probe.text += text;
    probe.tokens.push_back(static_cast<Token>(probe.tokens.size() + 1));
  }
  return probe;
}

AttentionFileInfo small_info() {
  AttentionFileInfo info;
  info.run_id = "run";
  info.config_yaml = "model: é\n";
  info.tokenizer = "byte";
  info.layers = {0, 2};
  info.heads = {1, 3, 4};
  info.probes = {
      probe_of("text_0", "configuration", {"a", "é", "\xC3", std::string(1, '\0'), "€", " "}),
      probe_of("window_0", "held-out tokens 5 to 7", {"x", "y", "\n"}),
  };
  info.statistic_names = {"entropy",    "mean_distance",   "previous_token", "first_token",
                          "same_token", "duplicate_token", "induction"};
  info.writer = "test";
  return info;
}

/// Multiples of 1/128, which binary16 holds exactly; check_attention_file.py makes the same.
std::vector<float> values_of(long salt, long step, std::size_t probe, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] = static_cast<float>((std::size_t(salt + 7 * step) + 31 * probe + 13 * i) % 101) / 128;
  return values;
}

std::vector<AttentionMaps> maps_of(const AttentionFileInfo& info, long step) {
  std::vector<AttentionMaps> maps;
  const std::size_t heads = info.layers.size() * info.heads.size();
  for (std::size_t p = 0; p < info.probes.size(); ++p) {
    const std::size_t tokens = info.probes[p].tokens.size();
    maps.push_back({values_of(1, step, p, heads * tokens * tokens),
                    values_of(2, step, p, heads * info.statistic_names.size())});
  }
  return maps;
}

/// Steps in a file, each of which must be there for every probe with all its numbers.
Steps whole_steps(const fs::path& path, const AttentionFileInfo& info) {
  const Hdf5File file = Hdf5File::open(path);
  Steps steps;
  for (const std::string& name : file.members("/attention/" + info.probes.front().name))
    if (name.starts_with("step_")) steps.insert(std::stol(name.substr(5)));
  for (const long step : steps) {
    const std::vector<AttentionMaps> expected = maps_of(info, step);
    for (std::size_t p = 0; p < info.probes.size(); ++p) {
      const std::string name = info.probes[p].name + "/step_" + std::to_string(step);
      const std::vector<Half> stored = file.read<Half>("/attention/" + name);
      EXPECT_TRUE(std::equal(stored.begin(), stored.end(), expected[p].weights.begin(), expected[p].weights.end(),
                             [](Half half, float value) { return to_float(half) == value; }))
          << name;
      EXPECT_EQ(file.read<float>("/statistics/" + name), expected[p].statistics) << name;
    }
  }
  return steps;
}

class AttentionFileTest : public testing::Test {
 protected:
  /// A file with these steps at path().
  void write_steps(const Steps& steps) {
    AttentionFile file(path(), info_, -1);
    for (const long step : steps) file.append(step, maps_of(info_, step));
  }
  fs::path path() const { return scratch_ / "attention.h5"; }
  /// Names in the folder, in alphabetical order.
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(scratch_.path())) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  static std::string contents(const fs::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  /// Runs `act` in a process of its own; returns what waitpid says of it.
  static int in_child(const std::function<int()>& act) {
    const pid_t child = ::fork();
    if (child == 0) {
      const int code = act();
      ::_exit(HasFailure() ? 99 : code);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    return status;
  }

  ScratchFolder scratch_{"attention"};
  AttentionFileInfo info_ = small_info();
};

TEST_F(AttentionFileTest, LayoutIsAsDocumented) {
  write_steps({0, 40, 1200});
  EXPECT_EQ(names(), (std::vector<std::string>{"attention.h5"}));
  EXPECT_EQ(whole_steps(path(), info_), (Steps{0, 40, 1200}));
  const Hdf5File file = Hdf5File::open(path());
  EXPECT_EQ(file.text_attribute("/", "format"), "dekoder-attention");
  EXPECT_EQ(file.attribute<std::int32_t>("/", "major"), 1);
  EXPECT_EQ(file.attribute<std::int32_t>("/", "minor"), 0);
  EXPECT_EQ(file.text_attribute("/", "config"), info_.config_yaml);
  EXPECT_EQ(file.read<std::int32_t>("/layers"), info_.layers);
  EXPECT_EQ(file.read<std::int32_t>("/heads"), info_.heads);
  EXPECT_EQ(file.text_attribute("/statistics", "names"),
            "entropy,mean_distance,previous_token,first_token,same_token,duplicate_token,induction");
  EXPECT_EQ(file.text_attribute("/attention/text_0", "text"), "aé\\xC3\\x00€ ");
  EXPECT_EQ(file.text_attribute("/attention/window_0", "source"), "held-out tokens 5 to 7");
  EXPECT_EQ(file.attribute<std::uint8_t>("/attention/text_0", "causal"), 1);
  EXPECT_EQ(file.read<Token>("/attention/window_0/tokens"), (std::vector<Token>{1, 2, 3}));
  EXPECT_EQ(file.read_texts("/attention/text_0/token_text"),
            (std::vector<std::string>{"a", "é", "\\xC3", "\\x00", "€", " "}));
  const Hdf5Dataset maps = file.dataset("/attention/text_0/step_40");
  EXPECT_EQ(maps.type(), Hdf5Type::float16);
  EXPECT_EQ(maps.shape(), (std::vector<std::size_t>{2, 3, 6, 6}));
  EXPECT_EQ(maps.chunk(), (std::vector<std::size_t>{1, 1, 6, 6}));
  EXPECT_EQ(file.text_attribute(maps.name(), "axes"), "layer,head,query,key");
  EXPECT_EQ(file.attribute<std::int64_t>(maps.name(), "step"), 40);
  EXPECT_EQ(file.shape("/statistics/text_0/step_0"), (std::vector<std::size_t>{2, 3, 7}));
  EXPECT_EQ(file.text_attribute("/statistics/text_0/step_0", "axes"), "layer,head,statistic");
}

TEST_F(AttentionFileTest, H5pyReadsIt) {
  if (std::system("python3 -c 'import h5py' 2> /dev/null") != 0) GTEST_SKIP() << "no h5py";
  write_steps({0, 40, 1200});
  const std::string command =
      "python3 " DEKODER_SOURCE_DIR "/tests/unit/check_attention_file.py '" + path().string() + "'";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

TEST_F(AttentionFileTest, GoesOnWithWhatIsThere) {
  write_steps({0, 40});
  const std::string before = contents(path());
  AttentionFile file(path(), info_, 50);
  EXPECT_EQ(contents(path()), before) << "nothing was to be changed";
  EXPECT_TRUE(file.has(0) && file.has(40));
  EXPECT_FALSE(file.has(50) || file.has(-1));
  EXPECT_THROW(file.append(40, maps_of(info_, 40)), std::logic_error);
  file.append(80, maps_of(info_, 80));
  EXPECT_EQ(whole_steps(path(), info_), (Steps{0, 40, 80}));
  EXPECT_EQ(file.steps(), (Steps{0, 40, 80}));
}

TEST_F(AttentionFileTest, StepsOfAnAbandonedFutureAreGone) {
  write_steps({0, 40});
  const auto bytes_before = fs::file_size(path());
  for (const long step : {80, 120, 160}) AttentionFile(path(), info_, 1000).append(step, maps_of(info_, step));
  EXPECT_GT(fs::file_size(path()), bytes_before + 3 * 1000);
  AttentionFile file(path(), info_, 40);
  EXPECT_EQ(file.steps(), (Steps{0, 40}));
  EXPECT_EQ(whole_steps(path(), info_), (Steps{0, 40}));
  EXPECT_LT(fs::file_size(path()), bytes_before + 1000) << "their space is gone";
  file.append(80, maps_of(info_, 80));
  EXPECT_EQ(whole_steps(path(), info_), (Steps{0, 40, 80}));
  EXPECT_EQ(AttentionFile(path(), info_, -1).steps(), Steps{});
  EXPECT_EQ(whole_steps(path(), info_), Steps{});
  EXPECT_EQ(names(), (std::vector<std::string>{"attention.h5"}));
}

TEST_F(AttentionFileTest, TheConfigurationIsThatOfTheStartThatCapturedLast) {
  write_steps({0});
  const std::string before = contents(path());
  info_.config_yaml = "train:\n  steps: 9000\n";
  info_.writer = "another backend";
  AttentionFile file(path(), info_, 0);
  EXPECT_EQ(file.steps(), Steps{0});
  EXPECT_EQ(contents(path()), before) << "written again, which a full disk would not take";
  for (const long step : {40, 80}) {
    file.append(step, maps_of(info_, step));
    EXPECT_EQ(Hdf5File::open(path()).text_attribute("/", "config"), info_.config_yaml);
    EXPECT_EQ(Hdf5File::open(path()).text_attribute("/", "writer"), info_.writer);
  }
  EXPECT_EQ(whole_steps(path(), info_), (Steps{0, 40, 80}));
  info_.config_yaml = "train:\n  steps: 9001\n";
  EXPECT_EQ(AttentionFile(path(), info_, 40).steps(), (Steps{0, 40}));
  EXPECT_EQ(Hdf5File::open(path()).text_attribute("/", "config"), info_.config_yaml)
      << "written as steps are dropped";
}

TEST_F(AttentionFileTest, KeptStepsAreKnownWithoutAChange) {
  EXPECT_EQ(kept_attention_steps(path(), info_, 100), Steps{});
  write_steps({0, 40, 80});
  const std::string before = contents(path());
  EXPECT_EQ(kept_attention_steps(path(), info_, 100), (Steps{0, 40, 80}));
  EXPECT_EQ(kept_attention_steps(path(), info_, 79), (Steps{0, 40}));
  EXPECT_EQ(kept_attention_steps(path(), info_, -1), Steps{});
  info_.run_id = "other";
  EXPECT_EQ(kept_attention_steps(path(), info_, 100), Steps{});
  EXPECT_EQ(contents(path()), before);
  EXPECT_EQ(names(), (std::vector<std::string>{"attention.h5"}));
}

TEST_F(AttentionFileTest, AFileOfOthersIsNotAddedTo) {
  AttentionFileInfo other = info_;
  other.run_id = "other";
  const auto replace = [&](const AttentionFileInfo& info, const Steps& steps) {
    fs::remove(path());
    AttentionFile file(path(), info, -1);
    for (const long step : steps) file.append(step, maps_of(info, step));
    return contents(path());
  };
  write_steps({0});
  AttentionFile file(path(), info_, 100);
  const std::string foreign = replace(other, {0, 20});
  testing::internal::CaptureStderr();
  file.append(40, maps_of(info_, 40));
  std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("is of another run; moved to"), std::string::npos) << said;
  EXPECT_EQ(contents(scratch_ / "attention-1.h5"), foreign);
  EXPECT_EQ(whole_steps(path(), info_), Steps{40});
  EXPECT_EQ(file.steps(), Steps{40});

  scratch_.write("attention.h5", "text");
  testing::internal::CaptureStderr();
  file.append(80, maps_of(info_, 80));
  said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("cannot be opened"), std::string::npos) << said;
  EXPECT_EQ(contents(scratch_ / "attention-2.h5"), "text");
  EXPECT_EQ(whole_steps(path(), info_), Steps{80});

  fs::remove(path());
  testing::internal::CaptureStderr();
  file.append(120, maps_of(info_, 120));
  said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("is gone"), std::string::npos) << said;
  EXPECT_EQ(whole_steps(path(), info_), Steps{120});

  replace(info_, {0, 60, 160});  // the run's own, brought back from elsewhere
  file.append(160, maps_of(info_, 160));
  file.append(200, maps_of(info_, 200));
  EXPECT_EQ(file.steps(), (Steps{0, 60, 160, 200}));
  EXPECT_EQ(whole_steps(path(), info_), file.steps());
  EXPECT_EQ(names(), (std::vector<std::string>{"attention-1.h5", "attention-2.h5", "attention.h5"}));
}

TEST_F(AttentionFileTest, ASymbolicLinkStays) {
  fs::create_directory(scratch_ / "other disk");
  fs::create_symlink("other disk/maps.h5", path());
  write_steps({0, 40});  // where the link leads there is nothing yet
  EXPECT_EQ(AttentionFile(path(), info_, 0).steps(), Steps{0});
  AttentionFile(path(), info_, 0).append(80, maps_of(info_, 80));
  EXPECT_TRUE(fs::is_symlink(path()));
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(scratch_ / "other disk/maps.h5")));
  EXPECT_EQ(whole_steps(scratch_ / "other disk/maps.h5", info_), (Steps{0, 80}));
  EXPECT_EQ(names(), (std::vector<std::string>{"attention.h5", "other disk"}));
}

TEST_F(AttentionFileTest, AFileOfOneStepTakesThePlaceOfTheLast) {
  for (const long step : {7, 3}) {
    write_attention_file(path(), info_, step, maps_of(info_, step));
    EXPECT_EQ(whole_steps(path(), info_), Steps{step});
    EXPECT_EQ(names(), (std::vector<std::string>{"attention.h5"}));
  }
  EXPECT_THROW(write_attention_file(path(), info_, 0, {}), ShapeError);
  const std::string before = contents(path());
  const int limited = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit small = {1000, 1000};
    if (::setrlimit(RLIMIT_FSIZE, &small) != 0) return 1;
    const std::string said =
        message_of<SaveError>([&] { write_attention_file(path(), info_, 9, maps_of(info_, 9)); });
    return said.find(path().string() + " is as it was") != std::string::npos ? 0 : 2;
  });
  EXPECT_EQ(limited, 0);
  EXPECT_EQ(contents(path()), before);
  EXPECT_EQ(names(), (std::vector<std::string>{"attention.h5"}));
  const std::string said = message_of<SaveError>(
      [&] { write_attention_file(scratch_ / "nothing/here.h5", info_, 9, maps_of(info_, 9)); });
  EXPECT_NE(said.find("cannot be created"), std::string::npos) << said;
  EXPECT_EQ(said.find("as it was"), std::string::npos) << "of a file that never was: " << said;
}

TEST_F(AttentionFileTest, TwoWritersOfOneFileEachLeaveAWholeOne) {
  write_attention_file(path(), info_, 0, maps_of(info_, 0));
  std::vector<pid_t> children;
  for (const long step : {1, 2}) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    try {
      for (int i = 0; i < 30; ++i) write_attention_file(path(), info_, step, maps_of(info_, step));
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  for (int i = 0; i < 30; ++i) EXPECT_EQ(whole_steps(path(), info_).size(), 1u);
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << "the other one took its temporary file away";
  }
  EXPECT_EQ(whole_steps(path(), info_).size(), 1u);
  EXPECT_EQ(names(), (std::vector<std::string>{"attention.h5"}));
}

TEST_F(AttentionFileTest, AKillLeavesAStepWholeOrAbsent) {
  for (const Steps& old : {Steps{}, Steps{0, 40}})
    for (const std::string point : {"mid_write", "before_rename", "after_rename"}) {
      SCOPED_TRACE(point + " after " + std::to_string(old.size()) + " steps");
      fs::remove(path());
      write_steps(old);
      const int status = in_child([&] {
        ::setenv("DEKODER_FAULT", ("attention:" + point).c_str(), 1);
        AttentionFile(path(), info_, 100).append(80, maps_of(info_, 80));
        return 0;
      });
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
      Steps expected = old;
      if (point == "after_rename") expected.insert(80);
      EXPECT_EQ(fs::exists(path()) ? whole_steps(path(), info_) : Steps{}, expected);
      EXPECT_EQ(fs::exists(scratch_ / ".attention.h5.tmp"), point != "after_rename");
      AttentionFile file(path(), info_, 100);
      EXPECT_EQ(file.steps(), expected);
      EXPECT_FALSE(fs::exists(scratch_ / ".attention.h5.tmp"));
      if (!file.has(80)) file.append(80, maps_of(info_, 80));
      expected.insert(80);
      EXPECT_EQ(whole_steps(path(), info_), expected);
      EXPECT_EQ(names(), (std::vector<std::string>{"attention.h5"}));
    }
  // while steps are dropped: before or after, nothing between
  fs::remove(path());
  write_steps({0, 40, 80});
  for (const std::string point : {"before_rename", "after_rename"}) {
    in_child([&] {
      ::setenv("DEKODER_FAULT", ("attention:" + point).c_str(), 1);
      AttentionFile(path(), info_, 0);
      return 0;
    });
    EXPECT_EQ(whole_steps(path(), info_), point == "before_rename" ? (Steps{0, 40, 80}) : Steps{0});
  }
}

TEST_F(AttentionFileTest, WhatDoesNotFitIsMovedAside) {
  write_steps({0, 40});
  const std::string good = contents(path());
  AttentionFileInfo run = info_, layers = info_, heads = info_, text = info_, fewer = info_, statistics = info_;
  run.run_id = "other";
  layers.layers = {0, 1};
  heads.heads = {1, 3};
  text.probes[1].token_texts[2] = text.probes[1].text = "z";
  fewer.probes.pop_back();
  statistics.statistic_names.pop_back();
  const std::string maps_begin = good.substr(0, good.size() / 2);
  const auto flipped = [&] {  // in the middle of compressed maps
    std::string bytes = good;
    const fs::path copy = scratch_.write("probe.h5", bytes);
    for (std::size_t at = bytes.size() - 200;; at -= 50) {
      bytes[at] = static_cast<char>(bytes[at] ^ 0x55);
      scratch_.write("probe.h5", bytes);
      const std::string reason = message_of<DataError>([&] { whole_steps(copy, info_); });
      bytes[at] = static_cast<char>(bytes[at] ^ 0x55);
      if (reason.find("Fletcher32") == std::string::npos) continue;
      bytes[at] = static_cast<char>(bytes[at] ^ 0x55);
      fs::remove(copy);
      return bytes;
    }
  }();
  const auto foreign = [&] {
    Hdf5File file = Hdf5File::create(scratch_ / "foreign.h5");
    file.write<float>("/x", std::vector<float>{1});
    file.close();
    const std::string bytes = contents(scratch_ / "foreign.h5");
    fs::remove(scratch_ / "foreign.h5");
    return bytes;
  }();
  struct Case {
    std::string reason;
    const AttentionFileInfo* info;
    std::string bytes;
  };
  const std::vector<Case> cases = {{"another run", &run, good},
                                   {"other layers", &layers, good},
                                   {"other heads", &heads, good},
                                   {"another text window_0", &text, good},
                                   {"other texts", &fewer, good},
                                   {"other statistics", &statistics, good},
                                   {"truncated", &info_, maps_begin},
                                   {"Fletcher32", &info_, flipped},
                                   {"no attention maps", &info_, foreign},
                                   {"cannot be opened", &info_, "text"},
                                   {"cannot be opened", &info_, ""}};
  int number = 0;
  for (const Case& each : cases) {
    SCOPED_TRACE(each.reason);
    scratch_.write("attention.h5", each.bytes);
    testing::internal::CaptureStderr();
    AttentionFile file(path(), *each.info, 100);
    const std::string said = testing::internal::GetCapturedStderr();
    const fs::path aside = scratch_ / ("attention-" + std::to_string(++number) + ".h5");
    EXPECT_NE(said.find("warning: "), std::string::npos) << said;
    EXPECT_NE(said.find(each.reason), std::string::npos) << said;
    EXPECT_NE(said.find(aside.string()), std::string::npos) << said;
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
    EXPECT_EQ(contents(aside), each.bytes) << "the old file is not kept as it was";
    EXPECT_EQ(file.steps(), Steps{});
    file.append(7, maps_of(*each.info, 7));
    EXPECT_EQ(whole_steps(path(), *each.info), Steps{7});
  }
}

TEST_F(AttentionFileTest, NoTruncationAndNoFlippedByteIsTakenForGood) {
  write_steps({0, 40});
  const std::string good = contents(path());
  const auto steps_with = [&](const std::string& bytes) {
    for (const std::string& name : names()) fs::remove(scratch_ / name);
    scratch_.write("attention.h5", bytes);
    testing::internal::CaptureStderr();
    const Steps steps = AttentionFile(path(), info_, 100).steps();
    testing::internal::GetCapturedStderr();
    EXPECT_TRUE(steps.empty() || whole_steps(path(), info_) == (Steps{0, 40}));
    return steps;
  };
  for (std::size_t cut = 0; cut < good.size(); cut += good.size() / 40)
    EXPECT_EQ(steps_with(good.substr(0, cut)), Steps{}) << cut;
  int refused = 0, flips = 0;
  for (std::size_t at = 0; at < good.size(); at += 61, ++flips) {
    std::string damaged = good;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    refused += steps_with(damaged).empty();
  }
  EXPECT_GT(refused, flips / 4) << "of " << flips;  // the others hit bytes that hold nothing
}

TEST_F(AttentionFileTest, AFullDiskLeavesTheOldFile) {
  write_steps({0});
  const std::string before = contents(path());
  // a limit on the size of files stands for the full disk where no disk can be mounted
  const int limited = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit small = {before.size() + 1000, before.size() + 1000};
    AttentionFile file(path(), info_, 100);
    if (::setrlimit(RLIMIT_FSIZE, &small) != 0) return 1;
    const std::string said = message_of<SaveError>([&] { file.append(40, maps_of(info_, 40)); });
    return said.find("step 40 are not saved") != std::string::npos && !file.has(40) ? 0 : 2;
  });
  EXPECT_EQ(limited, 0);
  EXPECT_EQ(contents(path()), before);
  EXPECT_EQ(names(), (std::vector<std::string>{"attention.h5"}));

  const int mounted = in_child([&] {
    const std::string disk = scratch_.path().string();
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k") != 0)
      return 77;
    AttentionFile file(path(), info_, -1);
    file.append(0, maps_of(info_, 0));
    const std::string whole = contents(path());
    std::ofstream(scratch_ / "ballast") << std::string(256 << 10, 'x');
    std::string said = message_of<SaveError>([&] { file.append(40, maps_of(info_, 40)); });
    if (said.find("free some space") == std::string::npos) return 1;
    if (contents(path()) != whole || names() != std::vector<std::string>{"attention.h5", "ballast"}) return 2;
    if (message_of<SaveError>([&] { AttentionFile(path(), info_, -1); }).empty()) return 3;
    AttentionFileInfo changed = info_;  // a restart with another configuration has nothing to write
    changed.config_yaml = "train:\n  steps: 9000\n";
    if (AttentionFile(path(), changed, 0).steps() != Steps{0}) return 11;
    if (contents(path()) != whole) return 4;
    fs::remove(scratch_ / "ballast");
    if (::mount(nullptr, disk.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0) return 5;
    said = message_of<SaveError>([&] { file.append(40, maps_of(info_, 40)); });
    if (said.find("Read-only file system") == std::string::npos) return 6;
    if (message_of<SaveError>([&] { AttentionFile(path(), info_, -1); }).empty()) return 7;
    AttentionFileInfo other = info_;
    other.run_id = "other";
    if (message_of<SaveError>([&] { AttentionFile(path(), other, -1); }).empty()) return 8;
    if (::mount(nullptr, disk.c_str(), nullptr, MS_REMOUNT, nullptr) != 0) return 9;
    file.append(40, maps_of(info_, 40));
    return whole_steps(path(), info_) == Steps{0, 40} ? 0 : 10;
  });
  if (WEXITSTATUS(mounted) == 77) GTEST_SKIP() << "no mount of one's own: only a limit on file sizes was tested";
  EXPECT_EQ(WEXITSTATUS(mounted), 0);
}

TEST_F(AttentionFileTest, BytesAreBoundedAsPrinted) {
  constexpr int steps = 16;
  for (const std::size_t tokens : {1u, 96u})
    for (const int probes : {1, 3}) {
      info_.probes.clear();
      for (int p = 0; p < probes; ++p)
        info_.probes.push_back(
            probe_of("text_" + std::to_string(p), "configuration", std::vector<std::string>(tokens, "\xFF")));
      std::vector<AttentionMaps> maps = maps_of(info_, 0);
      std::uint64_t draw = 0;  // bits that no compression makes smaller
      for (AttentionMaps& each : maps)
        for (float& weight : each.weights)
          weight =
              to_float({static_cast<std::uint16_t>(RandomStream(1, site_of("test"), 0).bits32(draw++) & 0xfbff)});
      fs::remove(path());
      AttentionFile file(path(), info_, -1);
      for (long step = 0; step < steps; ++step) {
        file.append(step, maps);
        ASSERT_LE(fs::file_size(path()), attention_bytes(info_, step + 1)) << tokens << " tokens, step " << step;
      }
      // and no more than the values and what is stated beside them
      std::uint64_t plain = 0;
      for (const AttentionMaps& each : maps) plain += 2 * each.weights.size() + 4 * each.statistics.size();
      const std::uint64_t beside = 4096 + 6 * 64 + plain / 1024;  // of a step
      const std::uint64_t of_steps = attention_bytes(info_, steps) - attention_bytes(info_, 0);
      EXPECT_LE(of_steps, steps * (plain + probes * beside));
      EXPECT_EQ(of_steps, steps * std::uint64_t(probes) * attention_step_bytes(6, tokens, 7));
      EXPECT_LE(attention_bytes(info_, 0),
                (32 << 10) + 100 + std::size_t(probes) * ((8 << 10) + 100 + 16 * tokens));
    }
}

TEST_F(AttentionFileTest, ReadersOfARunInProgressSeeWholeSteps) {
  write_steps({0});
  const Hdf5File opened_before = Hdf5File::open(path());
  const pid_t child = ::fork();
  if (child == 0) {  // reads over and over until all steps are there
    std::size_t seen = 0;
    while (seen < 26) {
      const Steps steps = whole_steps(path(), info_);
      if (steps.size() < seen || testing::Test::HasFailure()) ::_exit(1);
      seen = steps.size();
    }
    ::_exit(0);
  }
  AttentionFile file(path(), info_, 1000);
  for (long step = 1; step <= 25; ++step) file.append(step, maps_of(info_, step));
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(opened_before.read<float>("/statistics/text_0/step_0"), maps_of(info_, 0)[0].statistics);
  EXPECT_FALSE(opened_before.exists("/attention/text_0/step_1")) << "a file changed under its reader";
}

TEST_F(AttentionFileTest, SizesMustAgree) {
  AttentionFile file(path(), info_, -1);
  std::vector<AttentionMaps> maps = maps_of(info_, 0);
  EXPECT_THROW(file.append(0, std::span(maps).first(1)), ShapeError);
  maps[1].weights.pop_back();
  EXPECT_THROW(file.append(0, maps), ShapeError);
  maps = maps_of(info_, 0);
  maps[0].statistics.push_back(0);
  EXPECT_THROW(file.append(0, maps), ShapeError);
  EXPECT_TRUE(names().empty());
  info_.probes[0].token_texts.pop_back();
  EXPECT_THROW(AttentionFile(path(), info_, -1), ShapeError);
  info_ = small_info();
  info_.layers.clear();
  EXPECT_THROW(AttentionFile(path(), info_, -1), ShapeError);
}

}  // namespace
}  // namespace dekoder
