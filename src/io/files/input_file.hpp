// SPDX-License-Identifier: Apache-2.0
// Every file that is read is opened here, or asked about here before a library opens it: what cannot be read now is
// told from what holds the wrong bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace dekoder {

/// Throws ReadError: "<place>: <what>: <text of the errno>; <remedy>".
[[noreturn]] void throw_read_error(const std::string& place, int error, std::string_view what = "cannot be read");

/// What a path leads to where that is no regular file: "a folder", "a FIFO", "a socket", "a device"; nothing for a
/// regular file. `mode` is st_mode of stat(2).
std::optional<std::string> other_file_kind(unsigned mode);

/// Whether a path that could not be opened, with ENOENT, is a symbolic link whose target is missing. Not so where
/// the file was missing then and another process has made it since.
bool is_broken_link(const std::filesystem::path& path);

/// Which file a path leads to, and in which state: what differs for another file, and for one that was written to.
struct FileState {
  std::uint64_t device = 0, inode = 0, bytes = 0;
  std::int64_t modified_seconds = 0, modified_nanoseconds = 0;  ///< since 1970, of the last change of its contents

  bool operator==(const FileState&) const = default;
  bool is_same_file(const FileState& other) const { return device == other.device && inode == other.inode; }
};

/// That of what `path` leads to; all 0 where nothing is there or it cannot be asked.
FileState file_state(const std::filesystem::path& path);

/// A regular file, open for reading. It never waits for a writer, as a FIFO's reader does.
class InputFile {
 public:
  /// `what` says what is expected, without an article: "text file". Throws DataError where there is no such file or
  /// where it is a folder, a FIFO, a socket or a device, ReadError where the system does not open it; that is also
  /// so for a link whose target is missing, as a file system may not be mounted.
  InputFile(std::filesystem::path path, std::string_view what);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  /// Reads up to out.size() bytes and returns their number, 0 at the end of the file. Throws ReadError.
  std::size_t read(std::span<char> out);

  /// Its length now.
  std::uint64_t bytes() const;
  FileState state() const;
  /// Throws DataError, which says what happened, where this file, or what its path leads to now, is no longer in
  /// the state that it was in: call when it was opened and when its end was read, so that what was read in between
  /// is of one state. Writes within the same tick of the file system's clock that keep the size are not seen.
  void require_state(const FileState& before) const;
  /// Fills `out` from `offset` on; any number of threads may. Throws ReadError, and DataError where the file ends
  /// before.
  void read_at(std::uint64_t offset, std::span<char> out) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// Throws as InputFile where `path` cannot be opened for reading: ask before a library opens it that hangs on a
/// FIFO or takes a missing permission for a fault of the contents.
void require_regular_file(const std::filesystem::path& path, std::string_view what);

/// What is in a folder, in no order, as far as it could be listed before `failure`.
std::vector<std::filesystem::path> folder_entries(const std::filesystem::path& folder, std::error_code& failure);

/// All of a text file; nothing where there is none. Throws as InputFile otherwise.
std::optional<std::string> read_text_file(const std::filesystem::path& path, std::string_view what);

}  // namespace dekoder
