// SPDX-License-Identifier: Apache-2.0
#include "io/run/step_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/log.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/input_file.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// Step of a name that is as step_file_name makes it; -1 of any other one.
long step_of_name(std::string_view name, std::string_view prefix) {
  long step = -1;
  if (name.starts_with(prefix)) std::from_chars(name.data() + prefix.size(), name.data() + name.size(), step);
  return step >= 0 && name == step_file_name(prefix, step) ? step : -1;
}

/// ".<prefix><step>.h5.tmp"
bool is_unfinished_of_older_program(const fs::path& file, std::string_view prefix) {
  const fs::path name = file.filename();
  return name.extension() == ".tmp" && step_of_name(name.stem().string(), fmt::format(".{}", prefix)) >= 0;
}

}  // namespace

std::string step_file_name(std::string_view prefix, long step) {
  return fmt::format("{}{:08}.h5", prefix, step);
}

long step_of_file(const fs::path& file, std::string_view prefix) {
  return step_of_name(file.filename().string(), prefix);
}

std::vector<fs::path> list_step_files(const fs::path& folder, std::string_view prefix) {
  std::error_code failure;
  std::vector<fs::path> files = folder_entries(folder, failure);
  std::erase_if(files, [&](const fs::path& file) { return step_of_file(file, prefix) < 0; });
  if (failure && failure != std::errc::no_such_file_or_directory)
    throw_read_error(folder.string(), failure.value(), "cannot be listed");
  std::sort(files.begin(), files.end(), [&](const fs::path& a, const fs::path& b) {
    return step_of_file(a, prefix) > step_of_file(b, prefix);
  });
  return files;
}

bool is_unfinished_step_file(const fs::path& file, std::string_view prefix) {
  return is_unfinished_file(file) || is_unfinished_of_older_program(file, prefix);
}

void remove_left_over(const fs::path& folder, std::string_view prefix) {
  remove_unfinished_files(folder);
  std::error_code failure;
  for (const fs::path& entry : folder_entries(folder, failure)) {
    std::error_code ignored;
    if (is_unfinished_of_older_program(entry, prefix) && fs::remove(entry, ignored))
      log_info("removed {}, left by a writer that did not finish", entry.string());
  }
}

}  // namespace dekoder
