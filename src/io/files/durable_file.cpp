// SPDX-License-Identifier: Apache-2.0
#include "io/files/durable_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <utility>

#include "base/decimal.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/process_space.hpp"
#include "io/files/fault_point.hpp"
#include "io/files/input_file.hpp"
#include "io/files/xxh64.hpp"

namespace dekoder {

namespace fs = std::filesystem;

namespace {

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

/// `named` is what messages call it.
void sync_path(const fs::path& path, int flags, bool folder, const fs::path& named) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC);
  if (descriptor < 0)
    throw DataError("{}: cannot be opened to be synchronised: {}; {}", named.string(), std::strerror(errno),
                    write_remedy(errno));
  int failed = ::fsync(descriptor) == 0 ? 0 : errno;
  if (folder && (failed == EINVAL || failed == EROFS)) failed = 0;
  if (::close(descriptor) != 0 && failed == 0) failed = errno;
  if (failed != 0)
    throw DataError("{}: did not reach the disk: {}; {}", named.string(), std::strerror(failed),
                    write_remedy(failed));
}

}  // namespace

const char* write_remedy(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "free some space, or choose another place";
    case EFBIG:
      return "raise the limit on the size of files (ulimit -f), or choose another file system";
    case EMFILE:
    case ENFILE:
      return "raise the limit on open files (ulimit -n)";
    case EACCES:
    case EPERM:
    case EROFS:
      return "change the permissions of the folder, or choose another place";
    default:
      return "choose another place, whose file system takes files";
  }
}

void sync_folder(const std::filesystem::path& folder) {
  const fs::path here = folder.empty() ? "." : folder;
  sync_path(here, O_RDONLY | O_DIRECTORY, true, here);
}

fs::path output_target(const fs::path& output) {
  fs::path target = link_target(output);
  const auto refuse = [&](const std::string& why) {
    throw DataError("{}: {}; name another output", output.string(), why);
  };
  if (!target.has_filename()) refuse("names a folder, expected a file");
  const fs::path folder = folder_of(target);
  struct stat found = {};
  if (::lstat(target.c_str(), &found) == 0) {
    if (S_ISLNK(found.st_mode)) refuse("its symbolic links lead back to themselves");
    if (const auto other = other_file_kind(found.st_mode))
      refuse(fmt::format("is {}, expected a regular file or a name that is free", *other));
  } else if (errno != ENOENT) {
    refuse(fmt::format("cannot be written: {}", std::strerror(errno)));
  } else if (::stat(folder.c_str(), &found) != 0 && errno == ENOENT) {
    throw DataError("{}: its folder {} does not exist; make it first", output.string(), folder.string());
  }
  return target;
}

namespace {

constexpr std::string_view unfinished_prefix = ".dekoder-", unfinished_suffix = ".tmp";

/// Stands for the boot of this machine and the PID namespace: process numbers mean nothing beyond. Empty where
/// /proc does not tell.
const std::string& process_space() {
  static const std::string space = [] {
    const std::string boot = boot_id(), names = pid_namespace();
    if (boot == "-" || names == "-") return std::string();
    Xxh64 digest;
    digest.update(boot);
    digest.update(names);
    return fmt::format("{:016x}", digest.digest()).substr(0, 8);
  }();
  return space;
}

}  // namespace

bool is_unfinished_file(const fs::path& file, std::string_view kind) {
  const std::string name = file.filename().string();
  const std::string ending = fmt::format("{}{}{}", kind.empty() ? "" : "-", kind, unfinished_suffix);
  return name.starts_with(unfinished_prefix) && name.ends_with(ending);
}

namespace {

/// ".dekoder-<process space>-<process>-<number>-<kind>.tmp": short, as the target's own name may be as long as the
/// file system allows.
std::string unfinished_name(long number, const std::string& kind) {
  return fmt::format("{}{}-{}-{}-{}{}", unfinished_prefix, process_space(), ::getpid(), number, kind,
                     unfinished_suffix);
}

/// Whether nobody will go on with a file of unfinished_name.
bool is_left_over(const fs::path& file) {
  const std::string name = file.filename().string(),
                    here = fmt::format("{}{}-", unfinished_prefix, process_space());
  pid_t process = 0;
  if (!process_space().empty() && name.starts_with(here) &&
      std::from_chars(name.data() + here.size(), name.data() + name.size(), process).ec == std::errc() &&
      process > 0 && ::kill(process, 0) != 0 && errno == ESRCH)
    return true;
  constexpr std::time_t day = 24 * 60 * 60;
  struct stat found = {};
  return ::lstat(file.c_str(), &found) == 0 && found.st_mtime < std::time(nullptr) - day;
}

template <class Condition>
void remove_unfinished(const fs::path& folder, Condition condition) {
  std::error_code failure, ignored;
  fs::path first;
  std::size_t removed = 0;
  for (const fs::path& entry : folder_entries(folder.empty() ? "." : folder, failure))
    if (is_unfinished_file(entry) && condition(entry) && fs::remove(entry, ignored) && removed++ == 0)
      first = entry;
  if (removed == 1) log_info("removed {}, left by a writer that did not finish", first.string());
  if (removed > 1)
    log_info("removed {} and {} more, left by a writer that did not finish", first.string(), removed - 1);
}

/// Lets the file system set `bytes` aside for the first bytes of a file, where it can. Messages call it `named`.
void reserve_space(const fs::path& file, std::uint64_t bytes, const fs::path& named) {
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  if (descriptor < 0)
    throw DataError("{}: cannot be opened: {}; {}", named.string(), std::strerror(errno), write_remedy(errno));
  const int failed = ::fallocate(descriptor, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
  ::close(descriptor);
  if (failed == ENOSPC || failed == EDQUOT || failed == EFBIG || failed == EIO)
    throw DataError("{}: no space for {}: {}; {}", named.string(), bytes_text(bytes), std::strerror(failed),
                    write_remedy(failed));
}

/// Gives back what was set aside beyond the end of a file. Messages call it `named`.
void release_space(const fs::path& file, const fs::path& named) {
  std::error_code failure;
  const std::uintmax_t bytes = std::filesystem::file_size(file, failure);
  if (failure) throw DataError("{}: has no size: {}", named.string(), failure.message());
  if (::truncate(file.c_str(), static_cast<off_t>(bytes)) != 0)
    throw DataError("{}: cannot be cut to its length: {}; {}", named.string(), std::strerror(errno),
                    write_remedy(errno));
}

}  // namespace

void remove_unfinished_files(const fs::path& folder) {
  remove_unfinished(folder, [](const fs::path&) { return true; });
}

void remove_left_over_files(const fs::path& folder) {
  remove_unfinished(folder, is_left_over);
}

PendingFile::PendingFile(const fs::path& output, std::string kind, std::uint64_t bytes, LeftOvers left_overs)
    : target_(output_target(output)), kind_(std::move(kind)), bytes_(bytes) {
  const fs::path folder = folder_of(target_);
  if (left_overs == LeftOvers::remove) remove_left_over_files(folder);
  if (bytes_ > 0) require_space(folder, bytes_);
  static std::atomic<long> number = 0;
  int descriptor = -1;
  do {
    temporary_ = folder / unfinished_name(number++, kind_);
    descriptor = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor < 0 && (errno == EEXIST || errno == EINTR));
  if (descriptor < 0)
    throw DataError("{}: cannot be created: {}; {}", target_.string(), std::strerror(errno), write_remedy(errno));
  ::close(descriptor);
}

PendingFile::~PendingFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void PendingFile::reserve() {
  reserved_ = true;
  reserve_space(temporary_, bytes_, target_);
}

void PendingFile::settle(const std::function<void(const fs::path&)>& verify) {
  if (reserved_) release_space(temporary_, target_);
  fault_point(kind_ + ":before_fsync");
  sync_path(temporary_, O_RDONLY, false, target_);
  try {
    if (verify) verify(temporary_);
  } catch (const DataError& error) {
    throw DataError("{}: does not read back as it was written: {}", target_.string(), error.what());
  }
}

void PendingFile::take_name() {
  fault_point(kind_ + ":before_rename");
  if (std::rename(temporary_.c_str(), target_.c_str()) != 0)
    throw DataError("{}: cannot take the place of its earlier version: {}; {}", target_.string(),
                    std::strerror(errno), write_remedy(errno));
  temporary_.clear();
  fault_point(kind_ + ":after_rename");
}

void PendingFile::commit(const std::function<void(const fs::path&)>& verify) {
  settle(verify);
  take_name();
  sync_folder(folder_of(target_));
}

int write_whole(int descriptor, std::string_view contents) {
  while (!contents.empty()) {
    const ssize_t written = ::write(descriptor, contents.data(), contents.size());
    if (written < 0 && errno != EINTR) return errno;
    if (written == 0) return EIO;
    if (written > 0) contents.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

std::filesystem::path link_target(std::filesystem::path path) {
  std::error_code failure;
  for (int links = 0; links < 40 && std::filesystem::is_symlink(path, failure); ++links) {
    const std::filesystem::path target = std::filesystem::read_symlink(path, failure);
    if (failure) break;
    path = path.parent_path() / target;
  }
  return path;
}

std::string folder_obstacle(const fs::path& folder) {
  struct stat found = {};
  if (::stat(folder.c_str(), &found) == 0)
    return S_ISDIR(found.st_mode) ? "" : "is " + other_file_kind(found.st_mode).value_or("a file");
  if (errno == ELOOP) return "its symbolic links lead back to themselves";
  const fs::path target = link_target(folder);
  if (errno != ENOENT || target == folder || fs::is_directory(folder_of(target))) return "";
  return fmt::format("cannot be made: {}: it is a symbolic link to {}", std::strerror(ENOENT), target.string());
}

std::optional<std::uint64_t> free_bytes(const fs::path& folder) {
  struct statvfs space = {};
  if (::statvfs(folder.empty() ? "." : folder.c_str(), &space) != 0) return std::nullopt;
  return std::uint64_t{space.f_bavail} * space.f_frsize;
}

void require_space(const fs::path& folder, std::uint64_t bytes) {
  const auto free = free_bytes(folder);
  if (!free || *free >= bytes) return;  // where it is not known, writing will tell
  throw DataError("{}: {} are free, {} are needed; free some space", folder.empty() ? "." : folder.string(),
                  bytes_text(*free), bytes_text(bytes));
}

void write_file_whole(const fs::path& file, std::string_view contents) {
  PendingFile pending(file);
  const int descriptor = ::open(pending.temporary().c_str(), O_WRONLY | O_CLOEXEC);
  int failed = descriptor < 0 ? errno : write_whole(descriptor, contents);
  if (descriptor >= 0 && ::close(descriptor) != 0 && failed == 0) failed = errno;
  if (failed != 0)
    throw DataError("{}: cannot be written: {}; {}", pending.target().string(), std::strerror(failed),
                    write_remedy(failed));
  pending.commit();
}

}  // namespace dekoder
