// SPDX-License-Identifier: Apache-2.0
#include "io/run/previous_run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <iterator>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "base/log.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/fault_point.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// "previous-3" of ".previous-3.tmp"; empty where the name is another one.
std::string gathered_name(const std::string& name) {
  constexpr std::string_view prefix = ".previous-", suffix = ".tmp";
  if (!name.starts_with(prefix) || !name.ends_with(suffix) || name.size() <= prefix.size() + suffix.size())
    return "";
  const std::string number = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  const bool digits =
      std::all_of(number.begin(), number.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  return digits ? "previous-" + number : "";
}

/// Where what a link leads to, `target`, is kept.
fs::path kept_place(const fs::path& target, const std::string& previous) {
  return fs::is_directory(target) ? target / previous : fs::path(target.string() + "." + previous);
}

/// What is moved of a folder behind a link: its files. Folders in it are earlier runs, or not the run's.
std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    if (!fs::is_directory(entry.symlink_status())) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

/// Whether there is something to be moved; a link that leads nowhere is left to the new run.
bool has_content(const fs::path& entry) {
  if (!fs::exists(entry)) return false;
  if (!fs::is_directory(entry)) return true;
  return fs::is_symlink(entry) ? !files_in(entry).empty() : !fs::is_empty(entry);
}

void move_files(const std::vector<fs::path>& files, const fs::path& folder, const char* point) {
  for (const fs::path& file : files) {
    const fs::path to = folder / file.filename();
    if (fs::exists(fs::symlink_status(to)) && !(fs::is_directory(fs::symlink_status(to)) && fs::is_empty(to)))
      throw SaveError("{} cannot be moved to {}, where another one is; move one of them away", file.string(),
                      folder.string());
    fs::rename(file, to);
    fault_point(point);
  }
  sync_folder(folder);
}

/// The link to the kept files is on the disk before the first of them is moved, so that they are found again.
void gather_link(const fs::path& entry, const fs::path& gathered, const std::string& previous) {
  const fs::path target = fs::canonical(entry), kept = kept_place(target, previous);
  const bool relative = fs::read_symlink(entry).is_relative();
  fs::create_symlink(relative ? fs::relative(kept, gathered) : kept, gathered / entry.filename());
  sync_folder(gathered);
  if (fs::is_directory(target)) {
    fs::create_directory(kept);
    move_files(files_in(target), kept, "fresh:moved");
    sync_folder(target);
  } else {
    fs::rename(target, kept);
    fault_point("fresh:moved");
    sync_folder(target.parent_path());
  }
}

void put_back_link(const fs::path& link, const std::string& previous) {
  if (fs::exists(link)) {  // else it was not moved yet
    const fs::path kept = fs::canonical(link);
    if (fs::is_directory(kept)) {
      move_files(files_in(kept), kept.parent_path(), "fresh:moved_back");
      fs::remove(kept);
    } else {
      const std::string name = kept.string();
      const fs::path target = name.substr(0, name.size() - previous.size() - 1);
      if (fs::exists(target))
        throw SaveError("{} cannot be moved back to {}, where another file is; move one of them away", name,
                        target.string());
      fs::rename(kept, target);
      fault_point("fresh:moved_back");
    }
    sync_folder(kept.parent_path());
  }
  fs::remove(link);
}

void put_back(const fs::path& root, const fs::path& gathered, const std::string& previous) {
  bool any = false;
  for (const fs::directory_entry& entry : fs::directory_iterator(gathered)) {
    any = true;
    if (entry.is_symlink())
      put_back_link(entry.path(), previous);
    else
      move_files({entry.path()}, root, "fresh:moved_back");
  }
  fs::remove(gathered);
  sync_folder(root);
  if (any) log_info("{}: moved back what an interrupted --fresh had moved; the run is as it was", root.string());
}

/// Every failure as SaveError with the file and the system's reason.
template <class Act>
void as_save_error(const Act& act) {
  try {
    act();
  } catch (const SaveError&) {
    throw;
  } catch (const DataError& error) {
    throw SaveError("{}", error.what());
  } catch (const fs::filesystem_error& error) {
    throw SaveError("{}: {}", error.path1().string(), error.code().message());
  }
}

std::string free_name(const fs::path& root, const std::vector<fs::path>& entries) {
  const auto taken = [](const fs::path& path) { return fs::exists(fs::symlink_status(path)); };
  for (int n = 1;; ++n) {
    const std::string previous = fmt::format("previous-{}", n);
    const bool kept = std::any_of(entries.begin(), entries.end(), [&](const fs::path& entry) {
      return fs::is_symlink(entry) && taken(kept_place(fs::canonical(entry), previous));
    });
    if (!kept && !taken(root / previous) && !taken(root / ("." + previous + ".tmp"))) return previous;
  }
}

}  // namespace

fs::path move_to_previous(const fs::path& root, const std::vector<fs::path>& entries) {
  fs::path previous;
  try {
    as_save_error([&] {
      std::vector<fs::path> present;
      std::copy_if(entries.begin(), entries.end(), std::back_inserter(present), has_content);
      if (present.empty()) return;
      const std::string name = free_name(root, present);
      const fs::path gathered = root / ("." + name + ".tmp");
      fs::create_directory(gathered);
      sync_folder(root);
      for (const fs::path& entry : present)
        if (fs::is_symlink(entry))
          gather_link(entry, gathered, name);
        else
          move_files({entry}, gathered, "fresh:moved");
      sync_folder(gathered);
      sync_folder(root);
      fault_point("fresh:gathered");
      fs::rename(gathered, root / name);
      previous = root / name;
      sync_folder(root);
      fault_point("fresh:done");
    });
  } catch (const SaveError& error) {
    if (previous.empty()) undo_interrupted_move(root);
    throw SaveError("{}: the earlier files cannot be moved away: {}; choose another --run", root.string(),
                    error.what());
  }
  return previous;
}

void undo_interrupted_move(const fs::path& root) {
  as_save_error([&] {
    for (const fs::directory_entry& entry : fs::directory_iterator(root))
      if (const std::string previous = gathered_name(entry.path().filename().string()); !previous.empty())
        put_back(root, entry.path(), previous);
  });
}

}  // namespace dekoder
