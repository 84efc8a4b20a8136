// SPDX-License-Identifier: Apache-2.0
#include "io/files/durable_file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <csignal>
#include <cstring>

#include "base/error.hpp"
#include "io/files/append_log.hpp"
#include "io/files/input_file.hpp"
#include "support/disk_calls.hpp"
#include "support/process_limit.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing_support::free_descriptor;
using testing_support::message_of;
using testing_support::ProcessLimit;
using testing_support::ScratchFolder;

/// What is in a folder, hidden files too.
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string contents(const fs::path& file) {
  return read_text_file(file, "file").value_or("(none)");
}

void put(const fs::path& file, std::string_view text) {
  std::ofstream(file, std::ios::binary) << text;
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(DurableFile, SpaceThatIsMissingIsNamed) {
  const ScratchFolder folder("durable-file");
  require_space(folder.path(), 1);
  const std::uint64_t exabyte = 1'000'000'000'000'000'000;
  const std::string said = message_of<DataError>([&] { require_space(folder.path(), exabyte); });
  EXPECT_TRUE(said.starts_with(folder.path().string() + ": ")) << said;
  EXPECT_NE(said.find(" are free, 931322574.62 GiB are needed; free some space"), std::string::npos) << said;
  EXPECT_TRUE(message_of<DataError>([&] { require_space("", exabyte); }).starts_with(".: "));
}

TEST(DurableFile, ALinkLeadsToItsTarget) {
  const ScratchFolder folder("durable-file");
  const fs::path link = folder / "link", chain = folder / "chain", absolute = folder / "absolute";
  fs::create_symlink("nothing yet", link);
  fs::create_symlink("link", chain);
  fs::create_symlink("/nowhere/file", absolute);
  EXPECT_EQ(link_target(link), folder / "nothing yet");
  EXPECT_EQ(link_target(chain), folder / "nothing yet");
  EXPECT_EQ(link_target(absolute), "/nowhere/file");
  EXPECT_EQ(link_target(folder.write("file", "")), folder / "file");
  EXPECT_EQ(link_target(folder / "missing"), folder / "missing");
  fs::create_symlink("loop", folder / "loop");
  EXPECT_EQ(link_target(folder / "loop"), folder / "loop");
}

TEST(PendingFile, TakesItsNameWhenItIsWhole) {
  const ScratchFolder folder("pending");
  const fs::path file = folder.write("file", "old");
  {
    PendingFile pending(file);
    EXPECT_EQ(pending.temporary().parent_path(), folder.path());
    put(pending.temporary(), "new");
    EXPECT_EQ(contents(file), "old");
    pending.commit([&](const fs::path& temporary) { EXPECT_EQ(contents(temporary), "new"); });
    EXPECT_EQ(contents(file), "new");
  }
  const std::string said = message_of<DataError>([&] {
    PendingFile pending(file);
    put(pending.temporary(), "damaged");
    pending.commit([](const fs::path&) { throw DataError("reads back other than it should"); });
  });
  EXPECT_TRUE(said.starts_with(file.string() + ": ") && has(said, "reads back other than it should")) << said;
  EXPECT_EQ(contents(file), "new");
  {
    const PendingFile given_up(file);
  }
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"file"});
}

TEST(PendingFile, ReachesTheDiskBeforeItTakesItsName) {
  const ScratchFolder folder("pending-disk");
  PendingFile pending(folder / "file", "file", 1 << 20);
  put(pending.temporary(), "new");
  pending.reserve();
  EXPECT_EQ(testing_support::reserved_bytes, 1 << 20);
  const fs::path temporary = fs::canonical(pending.temporary());
  testing_support::synced_paths.clear();
  int verified = 0;
  pending.commit([&](const fs::path& file) {
    ++verified;
    EXPECT_EQ(file, pending.temporary());
    EXPECT_EQ(testing_support::synced_paths, std::vector<fs::path>{temporary});
    EXPECT_FALSE(fs::exists(folder / "file"));
  });
  EXPECT_EQ(verified, 1);
  EXPECT_EQ(testing_support::synced_paths, (std::vector<fs::path>{temporary, fs::canonical(folder.path())}));
  EXPECT_EQ(contents(folder / "file"), "new");
  struct stat found = {};
  ASSERT_EQ(::stat((folder / "file").c_str(), &found), 0);
  EXPECT_LT(found.st_blocks * 512, 1 << 20) << "reserved space that is left is given back";
}

TEST(PendingFile, FollowsLinksAndKeepsThem) {
  const ScratchFolder folder("pending");
  fs::create_directories(folder / "a");
  fs::create_directories(folder / "b");
  fs::create_symlink("../b/file", folder / "a/link");  // relative to its own folder
  fs::create_symlink(folder / "a/link", folder / "chain");
  for (const std::string round : {"dangling", "there"}) {
    PendingFile pending(folder / "chain");
    EXPECT_EQ(fs::canonical(pending.temporary().parent_path()), fs::canonical(folder / "b"));
    put(pending.temporary(), round);
    pending.commit();
    EXPECT_EQ(contents(folder / "b/file"), round);
  }
  EXPECT_TRUE(fs::is_symlink(folder / "chain") && fs::is_symlink(folder / "a/link"));
}

TEST(PendingFile, RefusesWhatAFileWouldReplace) {
  const ScratchFolder folder("pending");
  const auto refused = [&](const fs::path& output) {
    return message_of<DataError>([&] { const PendingFile pending(output); });
  };
  fs::create_symlink("two", folder / "one");
  fs::create_symlink("one", folder / "two");
  fs::create_symlink("nowhere/file", folder / "dangling");
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_TRUE(has(refused(folder / "one"), "one: its symbolic links lead back to themselves; name another output"));
  EXPECT_TRUE(has(refused(folder / "fifo"), "fifo: is a FIFO, expected a regular file or a name that is free"));
  EXPECT_TRUE(has(refused(folder.path()), "is a folder"));
  EXPECT_TRUE(has(refused(folder / "missing/"), "names a folder"));
  EXPECT_TRUE(has(refused("/dev/null"), "is a device"));
  EXPECT_TRUE(has(refused(folder / "nowhere/file"), "nowhere does not exist; make it first"));
  EXPECT_TRUE(has(refused(folder / "dangling"), "nowhere does not exist; make it first"));
  EXPECT_TRUE(has(refused(folder / "fifo/file"), "Not a directory"));
  EXPECT_TRUE(has(refused(folder / std::string(NAME_MAX + 1, 'n')), "File name too long"));
  write_file_whole(folder / std::string(NAME_MAX, 'n'), "fits");
  EXPECT_EQ(contents(folder / std::string(NAME_MAX, 'n')), "fits");
}

TEST(PendingFile, RemovesWhatDeadWritersLeft) {
  const ScratchFolder folder("pending");
  const auto unfinished = [&] {
    auto names = names_in(folder.path());
    std::erase_if(names, [](const std::string& name) { return !name.starts_with(".dekoder-"); });
    return names;
  };
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t writer = ::fork();
  ASSERT_GE(writer, 0);
  if (writer == 0) {
    const PendingFile pending(folder / "file");
    char done = '!';
    if (::write(ready[1], &done, 1) == 1) ::pause();
    ::_exit(0);
  }
  char done = 0;
  ASSERT_EQ(::read(ready[0], &done, 1), 1);
  const std::vector<std::string> of_writer = unfinished();
  ASSERT_EQ(of_writer.size(), 1u);
  {
    const PendingFile pending(folder / "other");
    EXPECT_EQ(unfinished().size(), 2u) << "that of a writer at work is left alone";
  }
  ::kill(writer, SIGKILL);
  ::waitpid(writer, nullptr, 0);
  put(folder / ".dekoder-of-another-machine-1-2.tmp", "at work?");
  put(folder / ".dekoder-of-another-machine-3-4.tmp", "yesterday's");
  put(folder / ".dekoder-notes", "a user's");
  put(folder / "data.tmp", "a user's");
  fs::last_write_time(folder / ".dekoder-of-another-machine-3-4.tmp",
                      fs::file_time_type::clock::now() - std::chrono::hours(25));
  {
    const PendingFile pending(folder / "other");
  }
  EXPECT_EQ(names_in(folder.path()),
            (std::vector<std::string>{".dekoder-notes", ".dekoder-of-another-machine-1-2.tmp", "data.tmp"}));
  remove_unfinished_files(folder.path());
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{".dekoder-notes", "data.tmp"}));
}

TEST(PendingFile, AFileSizeLimitLeavesTheOldFile) {
  const ScratchFolder folder("pending");
  const fs::path file = folder.write("file", "old");
  const ProcessLimit limit(RLIMIT_FSIZE, 1000);
  const std::string said = message_of<DataError>([&] { write_file_whole(file, std::string(5000, 'x')); });
  EXPECT_TRUE(has(said, "file: cannot be written: File too large")) << said;
  EXPECT_EQ(contents(file), "old");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"file"});
}

TEST(InputFile, TellsWhatIsNoFileFromWhatCannotBeRead) {
  const ScratchFolder folder("input");
  const auto data_error = [&](const fs::path& path) {
    const std::string said = message_of<DataError>([&] { require_regular_file(path, "text file"); });
    EXPECT_EQ(message_of<ReadError>([&] {
                try {
                  require_regular_file(path, "text file");
                } catch (const ReadError&) {
                  throw;
                } catch (const DataError&) {
                }
              }),
              "")
        << "nothing is wrong with the system";
    return said;
  };
  const auto read_error = [&](const fs::path& path) {
    return message_of<ReadError>([&] { require_regular_file(path, "text file"); });
  };
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, (folder / "socket").c_str(), sizeof(address.sun_path) - 1);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_TRUE(has(data_error(folder / "fifo"), "fifo: is a FIFO, no regular file; expected a text file"));
  EXPECT_TRUE(has(data_error(folder / "socket"), "socket: is a socket, no regular file; expected a text file"));
  EXPECT_TRUE(has(data_error("/dev/null"), "is a device"));
  EXPECT_TRUE(has(data_error(folder.path()), "is a folder"));
  EXPECT_TRUE(has(data_error(folder / "none"), "none: no such text file"));
  EXPECT_TRUE(has(data_error(folder / "fifo/none"), "no such text file"));
  ::close(socket);

  fs::create_symlink("loop", folder / "loop");
  fs::create_symlink("/not-mounted/file", folder / "link");
  EXPECT_TRUE(has(read_error(folder / "loop"), "Too many levels of symbolic links; its symbolic links lead back"));
  EXPECT_TRUE(has(read_error(folder / "link"), "No such file or directory; it is a symbolic link whose target is"));
  const fs::path file = folder.write("file", "text");
  EXPECT_EQ(read_error(file), "");
  const ProcessLimit limit(RLIMIT_NOFILE, static_cast<rlim_t>(free_descriptor()));
  EXPECT_TRUE(has(read_error(file), "file: cannot be read: Too many open files; raise the limit on open files"));
}

TEST(InputFile, AReadThatFailsSaysWhy) {
  // address 0 of a process is mapped to nothing: the kernel answers with EIO
  const std::string said = message_of<ReadError>([] { read_text_file("/proc/self/mem", "file"); });
  EXPECT_TRUE(has(said, "/proc/self/mem: cannot be read: Input/output error; start again when")) << said;
}

TEST(InputFile, ReadsATextWhole) {
  const ScratchFolder folder("input");
  std::string text(200'000, 'x');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 7);
  EXPECT_EQ(read_text_file(folder.write("text", text), "text file"), text);
  EXPECT_EQ(read_text_file(folder.write("empty", ""), "text file"), "");
  EXPECT_EQ(read_text_file(folder / "none", "text file"), std::nullopt);
}

TEST(AppendLog, LinesWaitUntilTheFileMayGrow) {
  const ScratchFolder folder("append");
  AppendLog log(folder / "log", 0);
  const std::string line = std::string(99, 'x') + "\n";
  {
    const ProcessLimit limit(RLIMIT_FSIZE, 250);
    for (int i = 0; i < 5; ++i) log.append(line);
    EXPECT_EQ(fs::file_size(folder / "log"), 200u) << "whole lines";
    EXPECT_TRUE(has(message_of<SaveError>([&] { log.durable_bytes(); }), "log: cannot be written: File too large"));
  }
  EXPECT_EQ(log.durable_bytes(), 500u);
  EXPECT_EQ(contents(folder / "log"), line + line + line + line + line);
}

TEST(AppendLog, IsCutOnlyWhenTold) {
  const ScratchFolder folder("append");
  folder.write("log", "kept\nlater\n");
  {
    AppendLog opened(folder / "log", 5);
  }
  EXPECT_EQ(contents(folder / "log"), "kept\nlater\n");
  AppendLog log(folder / "log", 5);
  log.cut();
  EXPECT_EQ(contents(folder / "log"), "kept\n");
  log.append("new\n");
  EXPECT_EQ(contents(folder / "log"), "kept\nnew\n");
}

/// What others do to the file between two lines, and what is then in it after the second.
TEST(AppendLog, GoesOnWhereTheFileWasChangedMeanwhile) {
  const ScratchFolder folder("append");
  const fs::path file = folder / "log";
  const auto after = [&](const std::function<void()>& change) {
    fs::remove(file);
    AppendLog log(file, 0);
    log.append("first\n");
    testing::internal::CaptureStderr();
    change();
    log.append("second\n");
    EXPECT_EQ(log.durable_bytes(), fs::file_size(file));
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_TRUE(has(said, "log: was changed while it was written")) << said;
    return contents(file);
  };
  EXPECT_EQ(after([&] { fs::resize_file(file, 0); }), "second\n");
  EXPECT_EQ(after([&] { fs::resize_file(file, 3); }), "second\n") << "a part of a line is none";
  EXPECT_EQ(after([&] { fs::remove(file); }), "second\n");
  EXPECT_EQ(after([&] { fs::rename(folder.write("copy", "others\n"), file); }), "others\nsecond\n");
  EXPECT_EQ(after([&] { std::ofstream(file, std::ios::app) << "note\n"; }), "first\nnote\nsecond\n");
  EXPECT_EQ(after([&] { fs::remove(file), fs::create_directory(file), fs::remove(file); }), "second\n");
}

/// A successor that took the run over leaves its lines, and gets none of ours between them.
TEST(AppendLog, WritesNothingIntoTheFileOfASuccessor) {
  const ScratchFolder folder("append");
  const fs::path file = folder / "log";
  int asked = 0;
  {
    AppendLog log(file, 0, [&] { ++asked, throw ConfigError("taken over"); });
    log.append("first\n");
    EXPECT_EQ(log.durable_bytes(), 6u);
    EXPECT_EQ(asked, 0) << "as nobody changed the file";
    std::ofstream(file, std::ios::app) << "successor's\n";
    EXPECT_THROW(log.append("second\n"), ConfigError);
    EXPECT_THROW(log.durable_bytes(), ConfigError);
  }
  EXPECT_EQ(asked, 3) << "also at the end, for the line that waited";
  EXPECT_EQ(contents(file), "first\nsuccessor's\n");
}

TEST(AppendLog, WaitsWhereItsPlaceIsTaken) {
  const ScratchFolder folder("append");
  AppendLog log(folder / "log", 0);
  log.append("first\n");
  fs::remove(folder / "log");
  fs::create_directory(folder / "log");
  EXPECT_TRUE(
      has(message_of<SaveError>([&] { log.durable_bytes(); }), "log: cannot be opened for writing: Is a dir"));
  fs::remove(folder / "log");
  log.append("second\n");
  EXPECT_EQ(log.durable_bytes(), 7u);
  EXPECT_EQ(contents(folder / "log"), "second\n");
}

TEST(AppendLog, WantsARegularFile) {
  const ScratchFolder folder("append");
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_TRUE(has(message_of<ConfigError>([&] { AppendLog log(folder / "fifo", 0); }), "fifo: is a FIFO"));
  EXPECT_TRUE(has(message_of<ConfigError>([&] { AppendLog log("/dev/null", 0); }), "/dev/null: is a device"));
}

}  // namespace
}  // namespace dekoder
