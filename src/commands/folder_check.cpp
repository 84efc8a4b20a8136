// SPDX-License-Identifier: Apache-2.0
#include "commands/folder_check.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <random>
#include <string_view>
#include <vector>

#include "base/elapsed.hpp"
#include "base/error.hpp"
#include "base/process_space.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/fault_point.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "io/run/run_lock.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view prefix = ".dekoder-selftest-";
constexpr const char* name_of_lock = "lock";

/// By the numbers of statfs(2).
std::string file_system_of(const fs::path& folder) {
  static constexpr struct {
    unsigned long number;
    const char* name;
  } kinds[] = {{0x6969, "NFS, a network file system"},
               {0x0bd00bd0, "Lustre, a network file system"},
               {0x47504653, "GPFS, a network file system"},
               {0x19830326, "BeeGFS, a network file system"},
               {0x00c36400, "CephFS, a network file system"},
               {0xaad7aaea, "PanFS, a network file system"},
               {0x5346414f, "AFS, a network file system"},
               {0xfe534d42, "SMB, a network file system"},
               {0xff534d42, "SMB, a network file system"},
               {0x01021997, "9P, a network file system"},
               {0x65735546, "FUSE, maybe a network file system"},
               {0x01021994, "tmpfs, in memory and gone with the node"},
               {0x794c7630, "overlay"},
               {0xef53, "ext4"},
               {0x58465342, "XFS"},
               {0x9123683e, "Btrfs"},
               {0x2fc12fc1, "ZFS"}};
  struct statfs found = {};
  if (::statfs(folder.c_str(), &found) != 0) return "unknown file system";
  const auto number = static_cast<unsigned long>(found.f_type) & 0xffffffffUL;
  for (const auto& kind : kinds)
    if (kind.number == number) return kind.name;
  return fmt::format("file system 0x{:x}", number);
}

/// Removes the folders of self tests that were killed.
void remove_remains(const fs::path& parent) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(parent, ignored)) {
    const fs::path lock = entry.path() / name_of_lock;
    if (entry.path().filename().string().starts_with(prefix) && fs::exists(lock, ignored) && !RunLock::holder(lock))
      fs::remove_all(entry.path(), ignored);
  }
}

/// A folder of its own, which goes with this object.
struct TestFolder {
  explicit TestFolder(const fs::path& folder) : path(folder) {
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

/// What is read next of this file, which is on the disk, comes from there where the system can forget it.
void forget(const fs::path& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  ::close(descriptor);
}

/// A small file and a large one, each once more over itself, in `folder`. Returns figures.
std::string try_files(const fs::path& folder) {
  constexpr int small_files = 4;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < small_files; ++i) write_file_whole(folder / "small", std::to_string(i));
  const double small_seconds = seconds_since(start) / small_files;

  const fs::path file = folder / "test.h5";
  std::vector<float> values(std::size_t{16} << 20);
  const double megabytes = double(values.size() * sizeof(float)) / 1e6;
  double write_seconds = 0, read_seconds = 0;
  for (const float round : {1.f, 2.f}) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = round * float(i % 8191);
    const auto begin = std::chrono::steady_clock::now();
    PendingFile pending(file, "file", values.size() * sizeof(float) + (1 << 20));
    Hdf5File written = Hdf5File::create(pending);
    pending.reserve();
    written.write("/values", std::span<const float>(values));
    written.close();
    pending.commit();
    write_seconds = seconds_since(begin);
    forget(file);
    const auto reading = std::chrono::steady_clock::now();
    std::vector<float> read = Hdf5File::open(file).read<float>("/values");
    read_seconds = seconds_since(reading);
    if (fault_point("selftest:files")) read.back() += 1;
    if (read != values) throw DataError("{}: reads back other than it was written", file.string());
  }
  return fmt::format(
      "HDF5 of {:.0f} MB written, synced and renamed in {:.2f} s ({:.0f} MB/s), read at {:.0f} MB/s; a small file "
      "in "
      "{:.1f} ms",
      megabytes, write_seconds, megabytes / write_seconds, megabytes / read_seconds, 1e3 * small_seconds);
}

}  // namespace

std::string check_folder(const fs::path& folder, const Communicator& ranks) {
  const auto number = ranks.from_root(std::uint64_t{std::random_device()()} << 32 | std::random_device()());
  const fs::path path = folder / fmt::format("{}{:016x}", prefix, number), lock_file = path / name_of_lock;
  std::optional<TestFolder> test;
  std::optional<RunLock> lock;
  ranks.on_root([&] {
    remove_remains(folder);
    test.emplace(path);
    lock.emplace(lock_file);
  });
  const bool seen = RunLock::holder(lock_file).has_value();
  std::string figures;
  ranks.on_root([&] {
    figures = try_files(path);
    lock->require_held();
    const auto free = free_bytes(path);
    figures = fmt::format("{}: {}, {} free; {}", folder.string(), file_system_of(path),
                          free ? fmt::format("{:.1f} GB", double(*free) / 1e9) : "nobody knows how much", figures);
  });
  const bool all_see = ranks.max(seen ? 0 : 1) == 0;  // before it goes
  if (!seen)
    throw DataError("{}: the lock that rank 0 has taken is not seen on {}", lock_file.string(), host_name());
  return figures + (all_see ? "; lock taken and seen" : "");
}

}  // namespace dekoder
