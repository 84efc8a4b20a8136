// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "io/files/xxh64.hpp"
#include "io/run/lock_file.hpp"
#include "io/run/run_lock.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing_support::message_of;
using testing_support::ScratchFolder;

class RunLockTest : public ::testing::Test {
 protected:
  std::string contents() const {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  /// A lock whose last heartbeat was so many seconds ago; negative: in the future of this machine's clock.
  void put(const std::string& line, int age = 0) const {
    std::ofstream(file) << line;
    timespec times[2] = {};
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= age;
    times[1] = times[0];
    ASSERT_EQ(utimensat(AT_FDCWD, file.c_str(), times, 0), 0);
  }
  void put(const LockHolder& holder, int age = 0) const { put(holder.line(), age); }
  /// As a program without heartbeat writes it.
  static std::string old_line(const LockHolder& h) {
    std::ostringstream line;
    line << h.host << ' ' << h.boot << ' ' << h.pid << ' ' << h.process_start << ' ' << h.job << ' '
         << h.job_restarts << ' ' << h.since << '\n';
    return line.str();
  }
  /// "" where the lock can be had, else the refusal; a refused one changes nothing.
  std::string try_lock() const {
    const std::string before = contents();
    const std::string refusal = message_of<ConfigError>([&] { const RunLock lock(file); });
    if (!refusal.empty()) {
      EXPECT_EQ(contents(), before);
    }
    EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), refusal.empty() ? 0 : 1) << refusal;
    return refusal;
  }
  static bool holds(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }
  /// The seconds of "taken over in 80 s", or -1.
  static int seconds_left(const std::string& refusal) {
    const std::string before = "taken over in ";
    const std::size_t at = refusal.find(before);
    return at == std::string::npos ? -1 : std::atoi(refusal.c_str() + at + before.size());
  }
  /// The number of a process that has ended.
  static pid_t dead_process() {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, nullptr, 0);
    return child;
  }

  const ScratchFolder folder{"run-lock"};
  const fs::path file = folder / "lock";
};

TEST_F(RunLockTest, HeartbeatDecidesBetweenNamespacesAndMachines) {
  LockHolder other = LockHolder::here();
  other.pid_namespace = "1";
  const pid_t numbers[] = {getpid(), dead_process()};  // neither says anything
  for (const pid_t pid : numbers) {
    other.pid = pid;
    put(other, 40);
    const std::string said = try_lock();
    EXPECT_TRUE(holds(said, "heartbeat 40 s ago") || holds(said, "heartbeat 41 s ago")) << said;
    EXPECT_NEAR(seconds_left(said), 80, 2) << said;
    const auto before = fs::last_write_time(folder.path());
    EXPECT_NEAR(RunLock::holder(file)->heartbeat_age, 40, 2);
    EXPECT_EQ(fs::last_write_time(folder.path()), before) << "who only looks changes the folder";
    put(other, 116);
    EXPECT_NE(try_lock(), "");
    put(other, 121);
    EXPECT_EQ(try_lock(), "");
  }
  other.pid_namespace = "-";  // one that could not be read is no one's
  put(other);
  EXPECT_NE(try_lock(), "");
  other = LockHolder::here();
  other.host = "elsewhere";
  other.boot = "another";
  put(other);
  EXPECT_TRUE(holds(try_lock(), "elsewhere"));
  put(other, 121);
  EXPECT_EQ(try_lock(), "");
  other.host = LockHolder::here().host;  // machines, and containers on them, may have the same name
  put(other);
  EXPECT_NE(try_lock(), "");
  put(other, -60);  // of a clock that was put back since
  EXPECT_NEAR(seconds_left(try_lock()), 180, 2);
  put(other, -100000);  // by so much that nobody would wait for it
  EXPECT_NEAR(seconds_left(try_lock()), 120, 2);
}

TEST_F(RunLockTest, NamesOfJobsMayHoldAnything) {
  for (const std::string& job :
       std::vector<std::string>{"4 711", "\t", "a\nb c", std::string(5000, 'x'), "\xff\x01"}) {
    ASSERT_EQ(setenv("SLURM_JOB_ID", job.c_str(), 1), 0);
    {
      RunLock lock(file);
      lock.require_held();
      const LockHolder holder = read_lock_file(file)->holder;
      EXPECT_EQ(holder.pid, getpid());
      EXPECT_EQ(holder.job, LockHolder::here().job);
      EXPECT_TRUE(holds(RunLock::holder(file)->text, "process " + std::to_string(getpid()))) << job;
    }
    EXPECT_FALSE(fs::exists(file));
  }
  unsetenv("SLURM_JOB_ID");
}

TEST_F(RunLockTest, WhatIsNoFileIsNoLock) {
  const auto refused = [&](const std::string& kind) {
    const std::string said = message_of<ConfigError>([&] { const RunLock lock(file); });
    EXPECT_TRUE(holds(said, "lock: " + kind) && holds(said, "remove it or choose another --run")) << said;
    EXPECT_FALSE(RunLock::holder(file).has_value()) << kind;
    fs::remove(file);
  };
  fs::create_symlink("nowhere", file);
  refused("is a symbolic link whose target is missing");
  ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);
  refused("is a FIFO");
  fs::create_symlink("/dev/null", file);
  refused("is a device");
  fs::create_directory(file);
  refused("Is a directory");
}

TEST_F(RunLockTest, OneThatComesAndGoesIsNeverABrokenLink) {
  std::jthread other([&](const std::stop_token& stop) {
    const std::string name = file.string(), made = name + ".made";
    std::ofstream(made) << LockHolder::here().line();
    while (!stop.stop_requested() && link(made.c_str(), name.c_str()) == 0 && unlink(name.c_str()) == 0) continue;
    unlink(made.c_str());
  });
  for (int i = 0; i < 30000; ++i)
    ASSERT_EQ(read_lock_file(file).value_or(LockFile{}).unreadable, "") << "read " << i;
}

TEST_F(RunLockTest, ProcessDecidesInItsOwnNamespace) {
  LockHolder other = LockHolder::here();
  put(other, 1000);  // alive, but stopped: only other machines cannot know
  EXPECT_TRUE(holds(try_lock(), "heartbeat 100"));
  EXPECT_FALSE(holds(try_lock(), "taken over in"));
  EXPECT_TRUE(RunLock::holder(file).has_value());
  other.process_start = "1";
  put(other);
  EXPECT_FALSE(RunLock::holder(file).has_value());
  EXPECT_EQ(try_lock(), "");
  other = LockHolder::here();
  other.pid = dead_process();
  put(other);
  EXPECT_EQ(try_lock(), "");
}

TEST_F(RunLockTest, AZombieHoldsNothing) {
  int told[2];
  ASSERT_EQ(pipe(told), 0);
  const pid_t child = fork();
  if (child == 0) {
    const std::string line = LockHolder::here().line();
    _exit(write(told[1], line.data(), line.size()) == ssize_t(line.size()) ? 0 : 1);
  }
  std::string line(1024, '\0');
  line.resize(std::size_t(read(told[0], line.data(), line.size())));
  siginfo_t info = {};
  ASSERT_EQ(waitid(P_PID, id_t(child), &info, WEXITED | WNOWAIT), 0);  // ended, and left as it is
  put(line);
  EXPECT_EQ(try_lock(), "");
  for (const int descriptor : told) close(descriptor);
  waitpid(child, nullptr, 0);
}

TEST_F(RunLockTest, LocksOfProgramsWithoutHeartbeat) {
  LockHolder old = LockHolder::here();
  put(old_line(old), 1000);
  EXPECT_TRUE(holds(try_lock(), "process " + std::to_string(getpid())));
  EXPECT_FALSE(holds(try_lock(), "heartbeat"));
  old.host = "elsewhere";
  put(old_line(old), 100000);  // never: it may be alive
  EXPECT_TRUE(holds(try_lock(), "delete " + file.string()));
  old = LockHolder::here();
  old.pid = dead_process();
  put(old_line(old));
  EXPECT_EQ(try_lock(), "");
  old.boot = "another";
  put(old_line(old));
  EXPECT_EQ(try_lock(), "");
}

TEST_F(RunLockTest, LocksWithoutAHolderOrThatCannotBeRead) {
  for (const std::string text : {"", "words", "a b c d e f g h i"}) {
    put(text);
    EXPECT_TRUE(holds(try_lock(), "a process that its lock file does not name")) << text;
    put(text, 121);
    EXPECT_EQ(try_lock(), "") << text;
  }
  fs::create_symlink("lock", file);  // a lock that no user can read
  const std::string said = message_of<ConfigError>([&] { const RunLock lock(file); });
  EXPECT_TRUE(holds(said, "Too many levels of symbolic links")) << said;
  fs::remove(file);
  fs::create_directory(file);
  EXPECT_TRUE(holds(message_of<ConfigError>([&] { const RunLock lock(file); }), "Is a directory"));
}

TEST_F(RunLockTest, LosesItsLockOnce) {
  LockHolder other = LockHolder::here();
  other.host = "elsewhere";
  other.boot = "another";
  {
    RunLock lock(file);
    lock.require_held();
    lock.stop_if_lost();
    put(other);
    const std::string said = message_of<ConfigError>([&] { lock.require_held(); });
    EXPECT_TRUE(holds(said, "the run was taken over")) << said;
    EXPECT_TRUE(holds(said, "on elsewhere")) << said;
    put(LockHolder::here());
    EXPECT_THROW(lock.stop_if_lost(), ConfigError);  // for ever, whoever has it next
    put(other);
  }
  EXPECT_EQ(contents(), other.line()) << "a lock of others was deleted";
  fs::remove(file);
  {
    RunLock lock(file);
    fs::remove(file);
    EXPECT_TRUE(holds(message_of<ConfigError>([&] { lock.require_held(); }), "was deleted"));
  }
  {
    RunLock lock(file);
    const fs::path away = folder / "away";
    fs::rename(file, away);
    fs::create_symlink("lock", file);
    EXPECT_TRUE(holds(message_of<SaveError>([&] { lock.require_held(); }), "cannot be read"));
    lock.stop_if_lost();  // not certain
    fs::rename(away, file);
    lock.require_held();
  }
  EXPECT_FALSE(fs::exists(file));
}

TEST_F(RunLockTest, HeartbeatIsRenewed) {
  RunLock lock(file);
  put(contents(), 100);
  lock.require_held();
  EXPECT_LT(RunLock::holder(file)->heartbeat_age, 5);
}

/// Lets a system call of this process end with an error, as file systems do that lack it.
void refuse_calls(const std::vector<int>& calls, int error) {
  std::vector<sock_filter> program;
  program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
  for (const int call : calls) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, unsigned(call), 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | unsigned(error)));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter = {static_cast<unsigned short>(program.size()), program.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
    _exit(7);
}

/// How many of so many processes that start at once get the lock. Who gets it dies with it once all have tried.
int winners_of(const fs::path& file, int processes, const std::vector<int>& refused_calls, int error) {
  int start[2], answers[2], end[2];
  if (pipe(start) != 0 || pipe(answers) != 0 || pipe(end) != 0) return -1;
  for (int i = 0; i < processes; ++i) {
    if (fork() != 0) continue;
    if (!refused_calls.empty()) refuse_calls(refused_calls, error);
    close(start[1]);
    close(end[1]);
    char go, answer = 'w';
    if (read(start[0], &go, 1) < 0) _exit(9);  // ends when the parent closes its side
    try {
      const RunLock lock(file);
      if (write(answers[1], &answer, 1) != 1 || read(end[0], &go, 1) < 0) _exit(9);
      _exit(0);  // without the destructor: the lock stays
    } catch (const ConfigError& refusal) {
      answer = std::string(refusal.what()).find("in use by process") != std::string::npos ? 'r' : '?';
      _exit(write(answers[1], &answer, 1) == 1 ? 0 : 9);
    }
  }
  close(start[0]);
  close(start[1]);
  int winners = 0;
  for (int i = 0; i < processes; ++i) {
    char answer = '-';
    EXPECT_EQ(read(answers[0], &answer, 1), 1);
    EXPECT_TRUE(answer == 'w' || answer == 'r') << answer;
    winners += answer == 'w';
  }
  for (const int descriptor : {answers[0], answers[1], end[0], end[1]}) close(descriptor);
  while (wait(nullptr) > 0) continue;
  return winners;
}

TEST_F(RunLockTest, OneOfSixteenGetsIt) {
  LockHolder killed = LockHolder::here(), elsewhere = LockHolder::here();
  killed.pid = dead_process();
  elsewhere.pid_namespace = "1";
  struct Kind {
    std::vector<int> refused;
    int error;
  };
  std::vector<int> links{SYS_flock, SYS_linkat};
#ifdef SYS_link
  links.push_back(SYS_link);
#endif
  const Kind kinds[] = {{{}, 0},
                        {{SYS_flock}, ENOLCK},  // as NFS without its lock service
                        {links, EOPNOTSUPP}};   // as file systems without hard links
  for (const Kind& kind : kinds)
    for (int round = 0; round < 5; ++round) {
      fs::remove(file);
      EXPECT_EQ(winners_of(file, 16, kind.refused, kind.error), 1) << "no lock";
      put(killed);
      EXPECT_EQ(winners_of(file, 16, kind.refused, kind.error), 1) << "lock of a dead process";
      put(elsewhere, 121);
      EXPECT_EQ(winners_of(file, 16, kind.refused, kind.error), 1) << "lock without heartbeat";
      for (const fs::directory_entry& entry : fs::directory_iterator(folder.path()))
        EXPECT_EQ(entry.path(), file) << "left over";
    }
}

/// Of a process elsewhere, which took over the lock of a dead one and is not heard of since, or by a wrong clock.
TEST_F(RunLockTest, ClaimsOfTheFutureEnd) {
  LockHolder killed = LockHolder::here(), elsewhere = LockHolder::here();
  killed.pid = dead_process();
  elsewhere.pid_namespace = "1";
  put(killed);
  Xxh64 digest;
  digest.update(contents());
  const fs::path claim = folder / fmt::format("lock.{:016x}.claim", digest.digest());
  std::ofstream(claim) << elsewhere.line();
  const auto dated = [&](int seconds) {
    fs::last_write_time(claim, fs::file_time_type::clock::now() + std::chrono::seconds(seconds));
  };
  dated(100000);
  EXPECT_TRUE(holds(message_of<ConfigError>([&] { const RunLock lock(file); }), "are taking over its lock"));
  EXPECT_LE(fs::last_write_time(claim), fs::file_time_type::clock::now());
  dated(-121);
  {
    const RunLock lock(file);
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST_F(RunLockTest, ReasonsOfTheSystemAreTold) {
  const fs::path missing = folder / "missing" / "lock";
  EXPECT_TRUE(holds(message_of<ConfigError>([&] { const RunLock lock(missing); }), "No such file or directory"));
  fs::create_directory(folder / "sub");
  std::ofstream(folder / "sub" / "lock.0123456789abcdef.claim") << "half a clai";
  timespec old[2] = {{1000000000, 0}, {1000000000, 0}};
  utimensat(AT_FDCWD, (folder / "sub" / "lock.0123456789abcdef.claim").c_str(), old, 0);
  {
    const RunLock lock(folder / "sub" / "lock");
  }
  EXPECT_TRUE(fs::is_empty(folder / "sub")) << "what dead processes left stays for ever";
}

}  // namespace
}  // namespace dekoder
