// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "io/run/metrics_log.hpp"
#include "io/run/run_directory.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;

/// Who holds a lock; empty where nobody does.
std::string live_holder(const fs::path& lock) {
  const auto holder = RunLock::holder(lock);
  return holder ? holder->text : std::string();
}

class RunDirectoryTest : public ::testing::Test {
 protected:
  RunDirectoryTest() {
    std::string pattern = (fs::temp_directory_path() / "dekoder-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    folder = pattern;
    root = folder / "runs" / "one";
  }
  ~RunDirectoryTest() override {
    unsetenv("SLURM_JOB_ID");
    unsetenv("SLURM_RESTART_COUNT");
    fs::remove_all(folder);
  }
  static std::string contents(const fs::path& file) {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  std::string lock_line() const { return contents(root / "lock"); }
  void put_lock(const std::string& line) const {
    fs::create_directories(root);
    std::ofstream(root / "lock") << line;
  }
  /// As if the holder's last heartbeat were so long ago.
  void age_lock(int seconds, const std::string& name = "lock") const {
    timespec times[2] = {};
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= seconds;
    times[1] = times[0];
    ASSERT_EQ(utimensat(AT_FDCWD, (root / name).c_str(), times, 0), 0);
  }
  /// What another process says to this directory: "" where it gets it.
  std::string try_open() const {
    try {
      const RunDirectory directory(root);
      return "";
    } catch (const ConfigError& error) {
      return error.what();
    }
  }
  /// `line` with field `index` replaced.
  static std::string with_field(const std::string& line, int index, const std::string& value) {
    std::istringstream words(line);
    std::string result, word;
    for (int i = 0; words >> word; ++i) result += (i == 0 ? "" : " ") + (i == index ? value : word);
    return result + "\n";
  }

  fs::path folder, root;
};

TEST_F(RunDirectoryTest, MakesFoldersAndReleasesTheLock) {
  {
    const RunDirectory directory(root);
    EXPECT_TRUE(fs::is_directory(directory.paths().checkpoints()));
    EXPECT_TRUE(fs::exists(directory.paths().lock()));
    directory.write_config("a: 1\n");
    directory.write_config("a: 2\n");
    EXPECT_EQ(contents(directory.paths().config()), "a: 2\n");
  }
  EXPECT_FALSE(fs::exists(root / "lock"));
  for (const fs::directory_entry& entry : fs::directory_iterator(root))
    EXPECT_TRUE(entry.path().filename() == "config.yaml" || entry.path().filename() == "checkpoints")
        << entry.path();
}

TEST_F(RunDirectoryTest, SecondTrainerTouchesNothing) {
  const RunDirectory first(root);
  const auto before = fs::last_write_time(root);
  const std::string lock = lock_line();
  const std::string message = try_open();
  EXPECT_NE(message.find("process " + std::to_string(getpid())), std::string::npos) << message;
  EXPECT_NE(message.find(root.string()), std::string::npos) << message;
  EXPECT_EQ(fs::last_write_time(root), before);
  EXPECT_EQ(lock_line(), lock);
  EXPECT_NE(live_holder(root / "lock"), "");
}

TEST_F(RunDirectoryTest, LockOfADeadProcessIsTakenOver) {
  std::string mine;
  {
    const RunDirectory directory(root);
    mine = lock_line();
  }
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  put_lock(with_field(mine, 2, std::to_string(child)));
  EXPECT_EQ(live_holder(root / "lock"), "");
  EXPECT_EQ(try_open(), "");
  put_lock(with_field(mine, 3, "1"));  // the number of a dead process, used again by another
  EXPECT_EQ(try_open(), "");
  put_lock(with_field(mine, 1, "before-the-reboot"));
  age_lock(130);
  EXPECT_EQ(try_open(), "");
  EXPECT_FALSE(fs::exists(root / "lock"));
}

TEST_F(RunDirectoryTest, LockOfAnotherHostIsRespected) {
  std::string mine;
  {
    const RunDirectory directory(root);
    mine = lock_line();
  }
  put_lock(with_field(mine, 0, "elsewhere"));
  const std::string message = try_open();
  EXPECT_NE(message.find("elsewhere"), std::string::npos) << message;
  EXPECT_NE(message.find("delete"), std::string::npos) << message;
  put_lock("");  // one that is just being made, or unreadable
  EXPECT_NE(try_open(), "");
}

TEST_F(RunDirectoryTest, RequeuedJobTakesOverItsOwnLock) {
  setenv("SLURM_JOB_ID", "42", 1);
  std::string mine;
  {
    const RunDirectory directory(root);
    mine = lock_line();
  }
  put_lock(with_field(mine, 0, "elsewhere"));
  EXPECT_NE(try_open(), "") << "the same start of the same job";
  setenv("SLURM_RESTART_COUNT", "1", 1);
  EXPECT_EQ(try_open(), "");
}

TEST_F(RunDirectoryTest, OneOfManyTakesAStaleLock) {
  std::string mine;
  {
    const RunDirectory directory(root);
    mine = lock_line();
  }
  for (int round = 0; round < 20; ++round) {
    put_lock(with_field(mine, 1, "before-the-reboot"));
    age_lock(130);
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    pid_t children[8];
    for (pid_t& child : children) {
      child = fork();
      if (child != 0) continue;
      close(ready[1]);
      char go;
      if (read(ready[0], &go, 1) < 0) _exit(9);  // ends when the parent closes its side
      try {
        const RunDirectory directory(root);
        usleep(150000);
        _exit(0);  // without the destructor: the lock stays
      } catch (const ConfigError&) {
        _exit(2);
      }
    }
    close(ready[0]);
    close(ready[1]);
    int winners = 0;
    for (const pid_t child : children) {
      int status = 0;
      waitpid(child, &status, 0);
      ASSERT_TRUE(WIFEXITED(status));
      winners += WEXITSTATUS(status) == 0;
    }
    EXPECT_EQ(winners, 1);
  }
}

TEST_F(RunDirectoryTest, FileInThePlaceOfTheFolder) {
  std::ofstream(folder / "runs") << "x";
  EXPECT_NE(try_open(), "");
  fs::remove(folder / "runs");
  fs::create_directories(folder / "runs");
  std::ofstream(root) << "x";
  const std::string message = try_open();
  EXPECT_NE(message.find("is a file"), std::string::npos) << message;
}

/// With the rights of a user who owns nothing, where this process may take them.
template <class Act>
void as_nobody(const Act& act) {
  const uid_t user = geteuid();
  if (user == 0) {
    ASSERT_EQ(seteuid(65534), 0);
  }
  act();
  if (user == 0) {
    ASSERT_EQ(seteuid(user), 0);
  }
}

TEST_F(RunDirectoryTest, WhatMayNotBeReadIsNotMissing) {
  const RunPaths paths{root};
  {
    const RunDirectory directory(root);
    directory.write_status({RunState::resumable, 1, 2, ""});
    fs::copy(paths.lock(), root / "lock.copy");
  }
  fs::rename(root / "lock.copy", paths.lock());
  std::ofstream(paths.metrics()) << "\n";
  ASSERT_EQ(chmod(folder.c_str(), 0755), 0);
  const auto message = [](const auto& read) -> std::string {
    try {
      read();
    } catch (const DataError& error) {
      return error.what();
    }
    return "";
  };
  for (const fs::path& file : {paths.status(), paths.metrics(), paths.lock()}) ASSERT_EQ(chmod(file.c_str(), 0), 0);
  as_nobody([&] {
    EXPECT_NE(message([&] { read_run_status(paths); }).find("status: cannot be read: Permission denied"),
              std::string::npos);
    EXPECT_NE(
        message([&] { read_last_metrics(paths.metrics()); }).find("metrics.jsonl: cannot be read: Permission"),
        std::string::npos);
    EXPECT_NE(live_holder(paths.lock()).find("Permission denied"), std::string::npos);
  });
  ASSERT_EQ(chmod(root.c_str(), 0), 0);
  as_nobody([&] {
    EXPECT_NE(message([&] { read_run_status(paths); }).find("Permission denied"), std::string::npos);
    EXPECT_NE(live_holder(paths.lock()).find("Permission denied"), std::string::npos);
    EXPECT_NE(try_open().find("Permission denied"), std::string::npos);
  });
  ASSERT_EQ(chmod(root.c_str(), 0755), 0);
  EXPECT_FALSE(read_run_status(RunPaths{root / "status"}).has_value()) << "below a file there is nothing";
}

TEST_F(RunDirectoryTest, NothingIsWrittenIntoARunOfAnother) {
  const RunDirectory directory(root);
  directory.write_status({RunState::resumable, 1, 2, ""});
  directory.write_config("a: 1\n");
  directory.require_held();
  const std::string mine = lock_line();
  put_lock(with_field(with_field(mine, 0, "elsewhere"), 1, "another"));
  EXPECT_THROW(directory.require_held(), ConfigError);
  EXPECT_THROW(directory.write_status({RunState::resumable, 2, 2, ""}), ConfigError);
  EXPECT_THROW(directory.write_config("a: 2\n"), ConfigError);
  EXPECT_THROW(directory.set_aside(), ConfigError);
  EXPECT_EQ(read_run_status(directory.paths())->step, 1);
  EXPECT_EQ(contents(root / "config.yaml"), "a: 1\n");
}

TEST_F(RunDirectoryTest, EverythingOfARunIsSetAside) {
  const RunDirectory directory(root);
  directory.set_aside();
  EXPECT_FALSE(fs::exists(root / "previous-1")) << "there was nothing";
  for (const char* name : {"config.yaml", "metrics.jsonl", "samples.jsonl", "restarts.jsonl", "samples.txt",
                           "attention.h5", "predictions", "status", "checkpoints/ckpt-00000001.h5", "notes"})
    std::ofstream(root / name) << name;
  directory.set_aside();
  for (const char* name : {"config.yaml", "metrics.jsonl", "samples.jsonl", "restarts.jsonl", "samples.txt",
                           "attention.h5", "predictions", "status", "checkpoints/ckpt-00000001.h5"}) {
    EXPECT_EQ(contents(root / "previous-1" / name), name);
    EXPECT_FALSE(fs::exists(root / name)) << name;
  }
  EXPECT_TRUE(fs::exists(root / "notes"));
  EXPECT_TRUE(fs::is_empty(root / "checkpoints"));
  std::ofstream(root / "status") << "x";
  directory.set_aside();
  EXPECT_EQ(contents(root / "previous-2" / "status"), "x");
}

TEST_F(RunDirectoryTest, AnInterruptedMoveThatCannotBeUndoneIsNamed) {
  {
    const RunDirectory directory(root);
  }
  fs::create_directories(root / ".previous-3.tmp");
  std::ofstream(root / ".previous-3.tmp" / "config.yaml") << "old";
  std::ofstream(root / "config.yaml") << "new";
  try {
    const RunDirectory directory(root);
    FAIL() << "one of two configurations was taken";
  } catch (const SaveError& error) {
    EXPECT_NE(std::string(error.what()).find(".previous-3.tmp/config.yaml cannot be moved"), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(contents(root / ".previous-3.tmp" / "config.yaml"), "old");
  EXPECT_EQ(contents(root / "config.yaml"), "new");
  EXPECT_FALSE(fs::exists(root / "lock"));
  fs::remove(root / "config.yaml");
  {
    const RunDirectory directory(root);
  }
  EXPECT_EQ(contents(root / "config.yaml"), "old");
  EXPECT_FALSE(fs::exists(root / ".previous-3.tmp"));
}

TEST_F(RunDirectoryTest, StatusRoundTrip) {
  const RunDirectory directory(root);
  EXPECT_FALSE(read_run_status(directory.paths()).has_value());
  for (const RunState state : {RunState::resumable, RunState::finished, RunState::failed}) {
    directory.write_status({state, 120, 1000, state == RunState::failed ? "loss is NaN\nat step 121" : ""});
    const auto status = read_run_status(directory.paths());
    ASSERT_TRUE(status.has_value());
    EXPECT_EQ(status->state, state);
    EXPECT_EQ(status->step, 120);
    EXPECT_EQ(status->steps, 1000);
    EXPECT_EQ(status->message, state == RunState::failed ? "loss is NaN at step 121" : "");
  }
  std::ofstream(directory.paths().status()) << "nonsense";
  EXPECT_THROW(read_run_status(directory.paths()), DataError);
}

}  // namespace
}  // namespace dekoder
