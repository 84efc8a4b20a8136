// SPDX-License-Identifier: Apache-2.0
#include "io/files/input_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.hpp"

namespace dekoder {

namespace fs = std::filesystem;

namespace {

const char* remedy_of(int error) {
  switch (error) {
    case EACCES:
    case EPERM:
      return "change the permissions of the file and its folders";
    case EMFILE:
    case ENFILE:
      return "raise the limit on open files (ulimit -n)";
    case ENOMEM:
      return "free some memory";
    case ELOOP:
      return "its symbolic links lead back to themselves; remove one";
    case ENOENT:
      return "it is a symbolic link whose target is missing: mount its file system, or remove the link";
    default:
      return "start again when its file system answers";
  }
}

/// Opens for reading, or throws. The kind is asked first, as to open a device may set it to work.
int opened(const fs::path& path, std::string_view what) {
  struct stat found = {};
  const auto fail = [&] {
    const int error = errno;
    const bool gone = error == ENOENT && !is_broken_link(path);
    if (gone || error == ENOTDIR || error == ENAMETOOLONG) throw DataError("{}: no such {}", path.string(), what);
    throw_read_error(path.string(), error);
  };
  const auto require_regular = [&] {
    if (const auto other = other_file_kind(found.st_mode))
      throw DataError("{}: is {}, no regular file; expected a {}{}", path.string(), *other, what,
                      S_ISDIR(found.st_mode) ? "" : ": save what it gives as a file and name that");
  };
  if (::stat(path.c_str(), &found) != 0) fail();
  require_regular();
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (descriptor < 0) fail();
  try {
    if (::fstat(descriptor, &found) != 0) fail();
    require_regular();  // also where it was replaced meanwhile
  } catch (const DataError&) {
    ::close(descriptor);
    throw;
  }
  return descriptor;
}

FileState state_of(const struct stat& found) {
  return {found.st_dev, found.st_ino, static_cast<std::uint64_t>(found.st_size), found.st_mtim.tv_sec,
          found.st_mtim.tv_nsec};
}

}  // namespace

FileState file_state(const fs::path& path) {
  struct stat found = {};
  return ::stat(path.c_str(), &found) == 0 ? state_of(found) : FileState{};
}

void throw_read_error(const std::string& place, int error, std::string_view what) {
  throw ReadError("{}: {}: {}; {}", place, what, std::strerror(error), remedy_of(error));
}

std::optional<std::string> other_file_kind(unsigned mode) {
  if (S_ISREG(mode)) return std::nullopt;
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

bool is_broken_link(const fs::path& path) {
  struct stat found = {};
  return ::lstat(path.c_str(), &found) == 0 && S_ISLNK(found.st_mode);
}

InputFile::InputFile(fs::path path, std::string_view what)
    : path_(std::move(path)), descriptor_(opened(path_, what)) {}

InputFile::~InputFile() {
  ::close(descriptor_);
}

std::size_t InputFile::read(std::span<char> out) {
  ssize_t got;
  do got = ::read(descriptor_, out.data(), out.size());
  while (got < 0 && errno == EINTR);
  if (got < 0) throw_read_error(path_.string(), errno);
  return static_cast<std::size_t>(got);
}

FileState InputFile::state() const {
  struct stat found = {};
  if (::fstat(descriptor_, &found) != 0) throw_read_error(path_.string(), errno);
  return state_of(found);
}

std::uint64_t InputFile::bytes() const {
  return state().bytes;
}

void InputFile::require_state(const FileState& before) const {
  const FileState there = file_state(path_), now = state() == before ? there : state();
  if (now == before) return;
  const std::string what = now == FileState{}          ? "it is no longer there"
                           : !now.is_same_file(before) ? "another file has taken its place"
                           : now.bytes != before.bytes
                               ? fmt::format("it had {} bytes and has {}", before.bytes, now.bytes)
                               : "it was written to";
  throw DataError("{}: changed while it was read: {}; start again when nothing writes to it", path_.string(), what);
}

void InputFile::read_at(std::uint64_t offset, std::span<char> out) const {
  while (!out.empty()) {
    const ssize_t got = ::pread(descriptor_, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_read_error(path_.string(), errno);
    if (got == 0)
      throw DataError("{}: ends at byte {}, where {} more are expected; it was cut short while it was read",
                      path_.string(), offset, out.size());
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

void require_regular_file(const fs::path& path, std::string_view what) {
  const InputFile file(path, what);
}

std::vector<fs::path> folder_entries(const fs::path& folder, std::error_code& failure) {
  std::vector<fs::path> entries;
  for (fs::directory_iterator entry(folder, failure), end; !failure && entry != end; entry.increment(failure))
    entries.push_back(entry->path());
  return entries;
}

std::optional<std::string> read_text_file(const fs::path& path, std::string_view what) {
  std::error_code ignored;
  if (fs::symlink_status(path, ignored).type() == fs::file_type::not_found) return std::nullopt;
  InputFile file(path, what);
  std::string text;
  std::array<char, 1 << 16> piece;
  for (std::size_t got = file.read(piece); got > 0; got = file.read(piece)) text.append(piece.data(), got);
  return text;
}

}  // namespace dekoder
