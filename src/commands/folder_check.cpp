// SPDX-License-Identifier: Apache-2.0
#include "commands/folder_check.hpp"

#include <fmt/format.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/elapsed.hpp"
#include "base/error.hpp"
#include "base/process_space.hpp"
#include "io/files/durable_file.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "io/run/run_lock.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// By the numbers of statfs(2).
std::string file_system_of(const fs::path& folder) {
  static constexpr struct {
    unsigned long number;
    const char* name;
  } kinds[] = {{0x6969, "NFS"},         {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"}, {0x19830326, "BeeGFS"},
               {0x00c36400, "CephFS"},  {0xfe534d42, "SMB"},    {0x65735546, "FUSE"}, {0x01021994, "tmpfs"},
               {0x794c7630, "overlay"}, {0xef53, "ext4"},       {0x58465342, "XFS"},  {0x9123683e, "Btrfs"},
               {0x2fc12fc1, "ZFS"},     {0xaad7aaea, "PanFS"}};
  struct statfs found = {};
  if (::statfs(folder.c_str(), &found) != 0) return "unknown file system";
  const auto number = static_cast<unsigned long>(found.f_type) & 0xffffffffUL;
  for (const auto& kind : kinds)
    if (kind.number == number) return kind.name;
  return fmt::format("file system 0x{:x}", number);
}

/// A folder of its own, which goes with this object.
struct TestFolder {
  explicit TestFolder(const fs::path& parent)
      : path(parent / fmt::format(".dekoder-selftest-{}-{}", host_name(), ::getpid())) {
    std::error_code failure;
    if (!fs::create_directory(path, failure))
      throw DataError("{}: cannot be made: {}", path.string(), failure ? failure.message() : "it is there already");
  }
  ~TestFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  TestFolder(const TestFolder&) = delete;

  fs::path path;
};

}  // namespace

std::string check_folder(const fs::path& folder) {
  const TestFolder test(folder);
  const fs::path lock_file = test.path / "lock", file = test.path / "test.h5";
  RunLock lock(lock_file);
  if (!RunLock::holder(lock_file)) throw DataError("{}: a lock that was taken is not seen", lock_file.string());

  std::vector<float> values(std::size_t{16} << 20);
  const double megabytes = double(values.size() * sizeof(float)) / 1e6;
  double write_seconds = 0, read_seconds = 0;
  for (const float round : {1.f, 2.f}) {  // the second time over a file that is there
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = round * float(i % 8191);
    const auto begin = std::chrono::steady_clock::now();
    PendingFile pending(file, "file", values.size() * sizeof(float) + (1 << 20));
    Hdf5File written = Hdf5File::create(pending);
    pending.reserve();
    written.write("/values", std::span<const float>(values));
    written.close();
    pending.commit();
    write_seconds = seconds_since(begin);
    const auto reading = std::chrono::steady_clock::now();
    if (Hdf5File::open(file).read<float>("/values") != values)
      throw DataError("{}: reads back other than it was written", file.string());
    read_seconds = seconds_since(reading);
  }
  lock.require_held();
  const auto free = free_bytes(test.path);
  return fmt::format(
      "{}, {:.1f} GB free; HDF5 of {:.0f} MB written, synced and renamed in {:.2f} s ({:.0f} MB/s), read at {:.0f} "
      "MB/s; lock taken and seen",
      file_system_of(test.path), double(free.value_or(0)) / 1e9, megabytes, write_seconds,
      megabytes / write_seconds, megabytes / read_seconds);
}

}  // namespace dekoder
