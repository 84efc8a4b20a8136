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

struct ParsedName {
  long step = -1;  ///< -1: the name is not "<prefix><8 digits or more>.h5..."
  std::string_view rest;
};

ParsedName parsed(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return {};
  name.remove_prefix(prefix.size());
  const std::size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
  ParsedName result;
  const std::errc error = std::from_chars(name.data(), name.data() + digits, result.step).ec;
  result.rest = name.substr(digits);
  if (digits < 8 || error != std::errc() || !result.rest.starts_with(".h5")) return {};
  return result;
}

}  // namespace

std::string step_file_name(std::string_view prefix, long step) {
  return fmt::format("{}{:08}.h5", prefix, step);
}

long step_of_file(const fs::path& file, std::string_view prefix) {
  const std::string name = file.filename().string();
  const ParsedName found = parsed(name, prefix);
  return found.rest == ".h5" ? found.step : -1;
}

std::vector<fs::path> list_step_files(const fs::path& folder, std::string_view prefix) {
  std::vector<fs::path> files;
  std::error_code failure;
  for (fs::directory_iterator entry(folder, failure), end; !failure && entry != end; entry.increment(failure))
    if (step_of_file(entry->path(), prefix) >= 0) files.push_back(entry->path());
  if (failure && failure != std::errc::no_such_file_or_directory)
    throw_read_error(folder.string(), failure.value(), "cannot be listed");
  std::sort(files.begin(), files.end(), [&](const fs::path& a, const fs::path& b) {
    return step_of_file(a, prefix) > step_of_file(b, prefix);
  });
  return files;
}

void remove_left_over(const fs::path& folder, std::string_view prefix) {
  remove_unfinished_files(folder);
  std::error_code failure;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, failure)) {
    const std::string name = entry.path().filename().string();
    if (parsed(name, fmt::format(".{}", prefix)).rest != ".h5.tmp") continue;
    std::error_code ignored;
    if (fs::remove(entry.path(), ignored))
      log_info("removed {}, left by a writer that did not finish", entry.path().string());
  }
}

}  // namespace dekoder
