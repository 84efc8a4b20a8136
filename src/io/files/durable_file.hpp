// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace dekoder {

/// Waits until the entries of a folder are on the disk: what makes a rename survive a power cut. File systems that
/// cannot do it for folders (EINVAL) are left alone. Throws DataError otherwise.
void sync_folder(const std::filesystem::path& folder);

/// The place of an output: `output` itself, or where its symbolic links lead, also to a file that is not there yet.
/// Throws DataError where the links go round in a circle, the folder is missing, the name is too long, or a folder,
/// a FIFO, a socket or a device is there, which a file would replace.
std::filesystem::path output_target(const std::filesystem::path& output);

/// What a user can do where a file cannot be written with this errno, as the end of a message.
const char* write_remedy(int error);

/// Whether a file is by its name one that a PendingFile (of this kind, if one is given) writes, or left.
bool is_unfinished_file(const std::filesystem::path& file, std::string_view kind = "");

/// Removes what PendingFiles left in `folder` whose process died. Call where no other process writes to the folder
/// (a locked run directory); PendingFile itself removes only those whose writer is surely gone.
void remove_unfinished_files(const std::filesystem::path& folder);

/// Removes those whose writers are surely gone: processes of this machine and PID namespace that have ended, or any
/// that has not written for a day.
void remove_left_over_files(const std::filesystem::path& folder);

/// An output in the making: it grows under a temporary name in the folder of its target and takes the target's name
/// when it is whole and on the disk, so that readers, and a start after a kill or a power cut, find the old file or
/// the whole new one and never a part.
///
///     PendingFile pending(path, "tokens", bytes);
///     Hdf5File file = Hdf5File::create(pending);
///     pending.reserve();                    // after the file is made anew, which gives reserved space back
///     ...
///     file.close();                         // or close(2), with its error checked
///     pending.commit(verify_token_file);
class PendingFile {
 public:
  /// Whether those that earlier writers left are removed first, for which all of the folder is looked through.
  enum class LeftOvers { remove, keep };

  /// Makes the temporary file, empty, after remove_left_over_files. `kind` names the fault points
  /// <kind>:before_fsync, <kind>:before_rename and <kind>:after_rename; `bytes` bounds the size, 0: not known.
  /// Throws as output_target, and DataError where so much is not free or the folder cannot be written.
  explicit PendingFile(const std::filesystem::path& output, std::string kind = "file", std::uint64_t bytes = 0,
                       LeftOvers left_overs = LeftOvers::remove);
  /// Removes the temporary file unless it was committed.
  ~PendingFile();
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  /// Where to write.
  const std::filesystem::path& temporary() const { return temporary_; }
  /// output_target of the output.
  const std::filesystem::path& target() const { return target_; }

  /// Sets disk space aside for the bytes, where the file system can, so that it cannot run out half way; what is
  /// left of it is given back by commit(). Throws DataError where there is not enough.
  void reserve();

  /// settle(), take_name() and sync_folder. Throws DataError naming the target, with the system's reason; the
  /// target is then untouched, unless the folder alone did not reach the disk.
  void commit(const std::function<void(const std::filesystem::path&)>& verify = nullptr);

  /// Brings the closed file to the disk and calls verify(temporary()), which throws where it reads back other than
  /// it should. Throws as commit().
  void settle(const std::function<void(const std::filesystem::path&)>& verify = nullptr);
  /// Renames it to target(), for many files before one sync_folder. Throws as commit().
  void take_name();

 private:
  std::filesystem::path target_, temporary_;  ///< temporary_ is empty once committed
  std::string kind_;
  std::uint64_t bytes_;
  bool reserved_ = false;
};

/// Writes all of `contents` to a descriptor, in as many calls as that takes. Returns 0, or errno of the call that
/// failed.
int write_whole(int descriptor, std::string_view contents);

/// Where a symbolic link leads, even to a file that is not there yet; any other path as it is. Renaming over a link
/// would put a file in the place of the link.
std::filesystem::path link_target(std::filesystem::path path);

/// What keeps a folder of this name from being there or being made, for messages: "is a FIFO"; "" where nothing
/// does. Only the folder that a symbolic link names itself is ever made: if one above it is missing, the disk may
/// be.
std::string folder_obstacle(const std::filesystem::path& folder);

/// Bytes that are free on the file system of `folder`; nothing where the system does not tell.
std::optional<std::uint64_t> free_bytes(const std::filesystem::path& folder);

/// Throws DataError where fewer than `bytes` are free on the file system of `folder`.
void require_space(const std::filesystem::path& folder, std::uint64_t bytes);

/// Replaces the contents of a small file through a PendingFile. Throws as that.
void write_file_whole(const std::filesystem::path& file, std::string_view contents);

}  // namespace dekoder
