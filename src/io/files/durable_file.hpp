// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace dekoder {

/// Waits until the contents of a file are on the disk (fsync). Throws DataError with the system's reason.
void sync_file(const std::filesystem::path& file);

/// Waits until the entries of a folder are on the disk: what makes a rename survive a power cut. File systems that
/// cannot do it for folders (EINVAL) are left alone. Throws DataError otherwise.
void sync_folder(const std::filesystem::path& folder);

/// Puts the finished `temporary` in the place of `final_name`, in the same folder, so that a reader sees the old
/// file or the whole new one and never a part: sync_file, rename, sync_folder.
void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& final_name);

/// Deletes a temporary file unless it got its final name.
class TemporaryFile {
 public:
  /// Removes what a dead writer may have left under this name.
  explicit TemporaryFile(std::filesystem::path path);
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile();

  const std::filesystem::path& path() const { return path_; }
  /// Takes the name out of this object's hands.
  void keep() { path_.clear(); }

 private:
  std::filesystem::path path_;
};

/// Where a symbolic link leads, even to a file that is not there yet; any other path as it is. Renaming over a link
/// would put a file in the place of the link.
std::filesystem::path link_target(std::filesystem::path path);

/// "512 bytes", "12.3 kB", "4.5 MB".
std::string bytes_text(std::uint64_t bytes);

/// Throws DataError where fewer than `bytes` are free on the file system of `folder`.
void require_space(const std::filesystem::path& folder, std::uint64_t bytes);

/// Lets the file system set `bytes` aside for the first bytes of a file, where it can, so that space cannot run out
/// half way. Throws DataError where there is not enough.
void reserve_space(const std::filesystem::path& file, std::uint64_t bytes);

/// Gives back what was set aside beyond the end of a file.
void release_space(const std::filesystem::path& file);

/// Replaces the contents of a small file: a reader, or a restart, sees the old or the new ones, never a part.
/// Throws DataError with the system's reason; the old file is then untouched.
void write_file_whole(const std::filesystem::path& file, std::string_view contents);

}  // namespace dekoder
