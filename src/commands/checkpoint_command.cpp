// SPDX-License-Identifier: Apache-2.0
#include "commands/checkpoint_command.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/decimal.hpp"
#include "base/utf8.hpp"
#include "commands/checkpoint_difference.hpp"
#include "commands/text_table.hpp"
#include "config/run_config_yaml.hpp"
#include "io/files/input_file.hpp"
#include "io/run/checkpoint_folder.hpp"
#include "io/run/checkpoint_review.hpp"
#include "io/run/run_directory.hpp"
#include "io/run/step_files.hpp"
#include "model/decoder.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;
using Print = std::function<void(const std::string&)>;

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

/// A path as it stands in a line of the output.
std::string shown(const fs::path& path) {
  return excerpt(path.string(), 4096);
}

/// The folder of checkpoints that a path means: that of a run directory, or itself. Throws DataError, ReadError
/// where it is no folder that can be listed.
fs::path checkpoint_folder(const fs::path& path) {
  std::error_code failure;
  const fs::file_type kind = fs::status(path, failure).type();
  if (kind == fs::file_type::not_found && !is_broken_link(path))
    throw DataError("{}: no such folder; expected a run directory of `dekoder train`, or its folder of checkpoints",
                    shown(path));
  if (kind != fs::file_type::directory && failure) throw_read_error(shown(path), failure.value());
  if (kind != fs::file_type::directory)
    throw DataError("{}: is no folder; expected a run directory of `dekoder train`, or its folder of checkpoints",
                    shown(path));
  const fs::path inner = RunPaths{path}.checkpoints();
  const fs::file_type inner_kind = fs::status(inner, failure).type();
  if (inner_kind == fs::file_type::directory) return inner;
  if (is_broken_link(inner)) throw_read_error(shown(inner), ENOENT);
  if (inner_kind != fs::file_type::not_found && failure) throw_read_error(shown(inner), failure.value());
  return path;
}

ParameterLayout layout_of_config(const std::string& yaml, const std::string& name) {
  const RunConfig config = recorded_run_config(yaml, name);
  if (config.model.vocabulary == 0)
    throw ConfigError("{}: its configuration does not say model.vocabulary, as a run's does", name);
  return run_parameters(config);
}

CheckpointReview review(const fs::path& file) {
  return review_checkpoint(file, layout_of_config);
}

/// A message about a file in one line, without the file's name in front.
std::string reason_text(const fs::path& file, std::string reason) {
  if (const std::string name = file.string(); reason.starts_with(name + ":")) reason.erase(0, name.size() + 1);
  reason.erase(0, reason.find_first_not_of(' '));
  for (std::size_t at; (at = reason.find('\n')) != std::string::npos;) reason.replace(at, 1, "; ");
  return reason;
}

// ---- list

/// A row of the list.
struct Entry {
  fs::path file;
  CheckpointReview review;
  std::optional<struct stat> found;  ///< nothing where the file is gone
  std::string marks;
};

std::optional<struct stat> stat_of(const fs::path& file) {
  struct stat found = {};
  if (::stat(file.c_str(), &found) != 0 && ::lstat(file.c_str(), &found) != 0) return std::nullopt;
  return found;
}

std::string written_text(const struct stat& found) {
  char text[32] = "";
  std::tm local = {};
  if (::localtime_r(&found.st_mtime, &local) != nullptr)
    std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &local);
  return text;
}

/// Marks what a restart takes, the best state, and what rotation leaves; `entries` begin with the newest.
void mark(std::vector<Entry>& entries) {
  const auto latest = std::find_if(entries.begin(), entries.end(), [](const Entry& entry) {
    return entry.review.verdict == CheckpointVerdict::valid ||
           entry.review.verdict == CheckpointVerdict::not_finite;
  });
  if (latest == entries.end()) return;
  const CheckpointInfo& info = latest->review.info;
  std::vector<fs::path> files;
  for (const Entry& entry : entries) files.push_back(entry.file);
  const int keep = recorded_run_config(info.config_yaml, latest->file.string()).checkpoint.keep;
  const std::vector<bool> kept = kept_checkpoints(files, keep, info.best_step, -1);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const auto add = [&](bool is, const char* name) {
      if (is) entries[i].marks += (entries[i].marks.empty() ? "" : ", ") + std::string(name);
    };
    add(entries[i].file == latest->file, "latest");
    add(checkpoint_step(entries[i].file) == info.best_step, "best");
    add(kept[i], "kept");
  }
}

/// What a file that is none of list_checkpoints is; "" where it has nothing to do with checkpoints.
const char* other_file(const fs::path& file) {
  const fs::path name = file.filename();
  if (name.extension() == ".corrupt" && step_of_file(name.stem(), checkpoint_prefix) >= 0) return "set aside";
  if (is_unfinished_step_file(file, checkpoint_prefix)) return "unfinished";
  if (name.string().starts_with("previous-") && is_folder(file)) return "earlier run";
  const bool alike = name.extension() == ".h5" || name.string().starts_with(checkpoint_prefix);
  return alike ? "other" : "";
}

const char* meaning_of(std::string_view kind) {
  if (kind == "set aside") return "a start found it damaged and gave it this name; it is not used";
  if (kind == "unfinished")
    return "a save that is going on, or what one left that was killed: the run's next start removes it";
  if (kind == "earlier run") return "what --fresh moved there; list it by its own name";
  return "no name of a checkpoint (ckpt-<step>.h5); it is not used";
}

std::vector<std::string> row_of(const Entry& entry, const std::string& step, const std::string& loss,
                                const std::string& state) {
  return {shown(entry.file.filename()),
          step,
          loss,
          entry.found && S_ISREG(entry.found->st_mode) ? bytes_text(std::uint64_t(entry.found->st_size)) : "-",
          entry.found ? written_text(*entry.found) : "-",
          entry.marks.empty() ? "-" : entry.marks,
          state};
}

ExitCode list(const fs::path& path, const Print& print) {
  const fs::path folder = checkpoint_folder(path);
  std::vector<Entry> entries;
  for (const fs::path& file : list_checkpoints(folder)) entries.push_back({file, review(file), stat_of(file), ""});
  mark(entries);
  std::reverse(entries.begin(), entries.end());
  std::vector<std::vector<std::string>> rows = {
      {"file", "step", "validation loss", "size", "written", "marks", "state"}};
  std::string remarks;
  for (const Entry& entry : entries) {
    const CheckpointInfo& info = entry.review.info;
    const std::string loss = std::isnan(info.validation_loss) ? "-" : fmt::format("{:.4f}", info.validation_loss);
    rows.push_back(
        row_of(entry, std::to_string(checkpoint_step(entry.file)), loss, verdict_name(entry.review.verdict)));
    if (entry.review.verdict == CheckpointVerdict::gone)
      remarks += fmt::format("{}: deleted meanwhile, as its run goes on\n", shown(entry.file.filename()));
    else if (entry.review.verdict != CheckpointVerdict::valid)
      remarks +=
          fmt::format("{}: {}\n", shown(entry.file.filename()), reason_text(entry.file, entry.review.reason));
  }
  std::error_code failure;
  std::vector<fs::path> others = folder_entries(folder, failure);
  std::sort(others.begin(), others.end());
  for (const fs::path& file : others) {
    const char* kind = other_file(file);
    if (checkpoint_step(file) >= 0 || *kind == '\0') continue;
    rows.push_back(row_of({file, {}, stat_of(file), ""}, "-", "-", kind));
    remarks += fmt::format("{}: {}\n", shown(file.filename()), meaning_of(kind));
  }
  if (entries.empty()) remarks = "no checkpoint yet (ckpt-<step>.h5)\n" + remarks;
  print(fmt::format("{}\n{}{}", shown(folder), rows.size() > 1 ? text_table(rows) : "", remarks));
  return ExitCode::finished;
}

// ---- verify

/// Prints a line per file, as each is done, and counts.
class Verification {
 public:
  explicit Verification(const Print& print) : print_(print) {}

  void folder(const fs::path& path) {
    const std::vector<fs::path> files = list_checkpoints(checkpoint_folder(path));
    if (files.empty()) return not_valid(path, "no checkpoint here (ckpt-<step>.h5)");
    for (auto file = files.rbegin(); file != files.rend(); ++file) {
      const CheckpointReview found = review(*file);
      if (found.verdict == CheckpointVerdict::gone)
        print_(fmt::format("{}: gone: deleted meanwhile, as its run goes on\n", shown(*file)));
      else
        tell(*file, found);
    }
  }

  void file(const fs::path& path) {
    const CheckpointReview found = review(path);
    if (found.verdict == CheckpointVerdict::gone) return not_valid(path, "no such file or folder");
    tell(path, found);
  }

  void not_valid(const fs::path& path, const std::string& what) {
    print_(fmt::format("{}: {}\n", shown(path), what));
    ++files_;
    ++not_valid_;
  }

  void require_all_valid() const {
    if (not_valid_ > 0) throw DataError("{} of {} are not valid checkpoints", not_valid_, files_);
  }

 private:
  void tell(const fs::path& path, const CheckpointReview& found) {
    if (found.verdict != CheckpointVerdict::valid)
      return not_valid(path, fmt::format("{}: {}", verdict_name(found.verdict), reason_text(path, found.reason)));
    print_(fmt::format("{}: VALID, step {}, {} tensors\n", shown(path), found.info.step, found.tensors));
    ++files_;
  }

  const Print& print_;
  int files_ = 0, not_valid_ = 0;
};

ExitCode verify(const std::vector<std::string>& paths, const Print& print) {
  Verification verification(print);
  for (const fs::path path : paths) {
    if (!is_folder(path)) {
      verification.file(path);
      continue;
    }
    try {
      verification.folder(path);
    } catch (const DataError& error) {
      verification.not_valid(path, reason_text(path, error.what()));
    }
  }
  verification.require_all_valid();
  return ExitCode::finished;
}

// ---- diff

/// The file itself, or the newest of a folder whose fields are intact. Once open it may be deleted.
OpenCheckpoint open_named(const fs::path& path) {
  if (!is_folder(path)) return open_checkpoint(path);
  std::optional<OpenCheckpoint> opened;
  newest_checkpoint(checkpoint_folder(path), [&](const fs::path& file) {
    opened.emplace(open_checkpoint(file));
    return opened->info;
  });
  return std::move(*opened);
}

ExitCode diff(const fs::path& left, const fs::path& right, const Print& print) {
  const OpenCheckpoint a = open_named(left), b = open_named(right);
  const auto side = [](const char* name, const OpenCheckpoint& checkpoint) {
    return fmt::format("{}: {}, step {}\n", name, shown(checkpoint.file.path()), checkpoint.info.step);
  };
  const CheckpointDifference difference = compare_checkpoints(a, b);
  print(side("a", a) + side("b", b) + difference.text + (difference.equal ? "equal\n" : "different\n"));
  return difference.equal ? ExitCode::finished : ExitCode::different;
}

}  // namespace

ExitCode run_checkpoint_command(const Command& command, const Print& print) {
  if (command.action == "list") return list(command.paths.at(0), print);
  if (command.action == "verify") return verify(command.paths, print);
  return diff(command.paths.at(0), command.paths.at(1), print);
}

}  // namespace dekoder
