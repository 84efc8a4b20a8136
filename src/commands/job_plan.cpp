// SPDX-License-Identifier: Apache-2.0
#include "commands/job_plan.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/decimal.hpp"
#include "inference/attention_capture.hpp"
#include "io/files/durable_file.hpp"
#include "io/run/checkpoint_folder.hpp"
#include "io/run/run_directory.hpp"
#include "model/model_summary.hpp"
#include "train/memory_plan.hpp"
#include "train/training_model.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

std::string line(const char* name, const std::string& value) {
  return fmt::format("{:<22} {}\n", name, value);
}

/// "2 on each rank", or "3 on 2 of 3 ranks, 2 on the others, which are idle meanwhile: 11.1 % of all time".
std::string shares_text(long leaves, int ranks) {
  const long less = leaves / ranks, more = leaves % ranks, most = less + 1;
  if (more == 0) return fmt::format("{} on each rank", less);
  return fmt::format("{} on {} of {} ranks, {} on the others, which are idle meanwhile: {:.1f} % of all time", most,
                     more, ranks, less, 100 - 100.0 * double(leaves) / double(most * ranks));
}

/// The folder of `path` that is there.
fs::path existing_folder(fs::path path) {
  std::error_code ignored;
  for (path = fs::absolute(path); !fs::is_directory(path, ignored) && path != path.root_path();)
    path = path.parent_path();
  return path;
}

std::uint64_t bytes_of_checkpoints(const fs::path& folder) {
  std::uint64_t bytes = 0;
  std::error_code ignored;
  for (const fs::path& file : list_checkpoints(folder))
    if (const auto size = fs::file_size(file, ignored); size != static_cast<std::uintmax_t>(-1)) bytes += size;
  return bytes;
}

}  // namespace

JobPlan plan_job(const RunConfig& config, const fs::path& run, int ranks, double memory, const DataMixture* data) {
  const ParameterLayout layout = run_parameters(config);
  const long leaves = leaves_of_steps(config).front();
  const std::vector<MemoryTerm> terms = training_memory(config, ExecSpace().concurrency(), ranks);
  JobPlan plan{training_memory_text(config, terms, ranks), ""};
  const auto refuse = [&](const std::string& what) { plan.refusal += (plan.refusal.empty() ? "" : "\n") + what; };

  const std::uint64_t rank_bytes = bytes_of(terms);
  const auto by_bytes = [](const MemoryTerm& a, const MemoryTerm& b) { return a.bytes < b.bytes; };
  if (memory > 0 && double(rank_bytes) > memory * 0x1p30)
    refuse(
        fmt::format("a rank takes {}, most of it for {}, but may take {} (--memory): lower training.micro_batch or "
                    "model.context, set training.recompute to block, or use more ranks, which share out the "
                    "optimizer's moments",
                    bytes_text(rank_bytes), std::max_element(terms.begin(), terms.end(), by_bytes)->name,
                    bytes_text(std::uint64_t(memory * 0x1p30))));

  plan.text += line("micro-batches of a step", fmt::format("{}: {}", leaves, shares_text(leaves, ranks)));
  plan.text +=
      line("messages of a step", bytes_text(bytes_of_step(shards_of(config.model, layout, ranks), leaves)) +
                                     " (gradients to their owners and parameters back, all ranks together)");

  const RunPaths paths{run};
  if (const std::string obstacle = folder_obstacle(run); !obstacle.empty())
    throw ConfigError("{}: {}, expected a folder for the run; move it away or choose another --run", run.string(),
                      obstacle);
  const long every = config.checkpoint.every == 0 ? config.training.steps : config.checkpoint.every;
  const std::uint64_t saves = std::uint64_t((config.training.steps + every - 1) / every),
                      files = std::min(saves, std::uint64_t(config.checkpoint.keep) + 1) + 1;
  std::uint64_t needed = files * checkpoint_bytes(layout);
  const std::uint64_t there = bytes_of_checkpoints(paths.checkpoints());
  plan.text +=
      line("checkpoints", fmt::format("{} in {} files (the newest {}, the best one, and one being written)",
                                      bytes_text(needed), files, config.checkpoint.keep));
  if (data != nullptr && captures_attention(config, 0)) {
    const std::uint64_t maps = plan_attention(config, {}, *data, paths.attention(), -1).bytes;
    plan.text += line("attention maps", "at most " + bytes_text(maps));
    needed += maps;
  }
  const fs::path folder = existing_folder(run);
  if (const auto free = free_bytes(folder)) {
    plan.text +=
        line("free for the run", fmt::format("{} in {}{}", bytes_text(*free), folder.string(),
                                             there == 0 ? "" : ", and " + bytes_text(there) + " of checkpoints"));
    if (*free + there < needed)
      refuse(
          fmt::format("{}: {} are free, {} are needed: free some space, lower checkpoint.keep, or name another run "
                      "directory (--run)",
                      folder.string(), bytes_text(*free + there), bytes_text(needed)));
  }
  return plan;
}

}  // namespace dekoder
