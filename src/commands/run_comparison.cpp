// SPDX-License-Identifier: Apache-2.0
#include "commands/run_comparison.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "io/files/xxh64.hpp"
#include "io/run/checkpoint_folder.hpp"
#include "io/run/step_files.hpp"
#include "model/decoder.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

using HostValues = Kokkos::View<Real*, Layout, Kokkos::HostSpace>;

constexpr const char* expected_run = "expected a run directory of `dekoder train`";

RunConfig stored_config(const RunPaths& paths) {
  if (!fs::exists(paths.config()))
    throw DataError("{}: is no run directory, as there is no {} in it; {}", paths.root.string(),
                    paths.config().filename().string(), expected_run);
  try {
    RunConfig config = recorded_run_config(read_config_text(paths.config()), paths.config().string());
    if (config.model.vocabulary == 0)
      throw DataError("{}: model.vocabulary is missing; {}, which writes it", paths.config().string(),
                      expected_run);
    return config;
  } catch (const ConfigError& error) {
    throw DataError("{}\n{}: is not the configuration that a run wrote; restore it or train again", error.what(),
                    paths.config().string());
  }
}

/// Lines that a checkpoint counted on must be there.
void check_log_length(const RunPaths& paths, const CheckpointInfo& saved) {
  const std::uint64_t bytes = fs::file_size(paths.metrics());
  if (bytes < saved.metrics_bytes)
    throw DataError(
        "{}: has {} bytes but the checkpoint of step {} was saved with {}: truncated; restore it, or train again",
        paths.metrics().string(), bytes, saved.step, saved.metrics_bytes);
}

/// What `use` returns; the errors of attention files with the remedy.
template <class Use>
auto with_remedy(const Use& use) {
  try {
    return use();
  } catch (const DataError& error) {
    throw DataError("{}; move the file away to compare the rest", error.what());
  }
}

AttentionReader open_attention(const RunPaths& paths, const std::optional<CheckpointInfo>& saved) {
  AttentionReader reader(list_step_files(paths.attention(), "step-").front());
  if (saved && reader.info().run_id != saved->run_id)
    throw DataError("{}: is of another run ({}, expected {})", paths.attention().string(), reader.info().run_id,
                    saved->run_id);
  return reader;
}

/// The hash of the tokens a run was evaluated on; empty where it was not evaluated.
std::string validation_hash(const ComparedRun& run) {
  return run.metrics.evaluations.empty() ? "" : run.metrics.evaluations.back().validation_hash;
}

HostValues initial_values(const ExecSpace& exec, const RunConfig& config, const ParameterLayout& layout) {
  ParameterStore store(layout);
  store.initialise(exec, config.training.seed);
  HostValues values("initial_values", layout.flat_size());
  Kokkos::deep_copy(exec, values, store.values());
  exec.fence("dekoder::initial_values");
  return values;
}

InitialValuesPairing pair_initial_values(const ExecSpace& exec, const RunConfig& first, const RunConfig& other) {
  const ParameterLayout first_layout = decoder_parameters(first.model),
                        other_layout = decoder_parameters(other.model);
  const HostValues first_values = initial_values(exec, first, first_layout),
                   other_values = initial_values(exec, other, other_layout);
  std::map<std::string, const ParameterEntry*> of_other;
  for (const ParameterEntry& entry : other_layout.entries()) of_other[entry.name] = &entry;
  InitialValuesPairing pairing;
  for (const ParameterEntry& entry : first_layout.entries()) {
    const auto found = of_other.find(entry.name);
    if (found == of_other.end()) {
      pairing.only_first.push_back(entry.name);
      continue;
    }
    const ParameterEntry& match = *found->second;
    if (match.shape != entry.shape)
      pairing.other_shape.push_back(entry.name);
    else if (std::memcmp(first_values.data() + entry.offset, other_values.data() + match.offset,
                         entry.size() * sizeof(Real)) != 0)
      pairing.different.push_back(entry.name);
    else
      ++pairing.equal;
    of_other.erase(found);
  }
  for (const ParameterEntry& entry : other_layout.entries())
    if (of_other.count(entry.name) > 0) pairing.only_other.push_back(entry.name);
  return pairing;
}

/// A tokenizer in a few letters: equal ones have equal names.
std::string tokenizer_fact(const ComparedRun& run) {
  if (!run.saved) return "no checkpoint yet";
  const std::string& text = run.saved->tokenizer;
  Xxh64 digest;
  digest.update(text);
  return fmt::format("{} of {} tokens, digest {:016x}", text.substr(0, text.find_first_of(" :\n")),
                     run.config.model.vocabulary, digest.digest());
}

}  // namespace

ComparedRun read_compared_run(const fs::path& root) {
  if (!fs::exists(root)) throw DataError("{}: there is no such run directory; {}", root.string(), expected_run);
  if (!fs::is_directory(root)) throw DataError("{}: is a file; {}", root.string(), expected_run);
  const RunPaths paths{root};
  ComparedRun run;
  run.name = root.string();
  run.config = stored_config(paths);
  run.status = read_run_status(paths);
  run.running = !RunLock::live_holder(paths.lock()).empty();
  // The checkpoint before the log: a log that grows meanwhile is never shorter than the checkpoint says.
  if (!list_checkpoints(paths.checkpoints()).empty())
    run.saved = newest_checkpoint(paths.checkpoints(), read_checkpoint_info).info;
  run.metrics = read_metrics(paths.metrics());
  if (run.saved) check_log_length(paths, *run.saved);
  if (!list_step_files(paths.attention(), "step-").empty())
    run.attention = with_remedy([&] { return open_attention(paths, run.saved); });
  return run;
}

Pairing pair_runs(const ExecSpace& exec, const ComparedRun& first, const ComparedRun& other) {
  Pairing pairing;
  const auto fact = [&](const char* what, const auto& of_first, const auto& of_other, bool known = true) {
    pairing.facts.push_back({what, fmt::format("{}", of_first), fmt::format("{}", of_other), known});
  };
  const RunConfig &a = first.config, &b = other.config;
  const bool saved = first.saved && other.saved;
  const auto of_saved = [](const ComparedRun& run, std::string CheckpointInfo::* field) {
    return run.saved ? (*run.saved).*field : std::string("no checkpoint yet");
  };
  const std::string first_validation = validation_hash(first), other_validation = validation_hash(other);
  fact("seed", a.training.seed, b.training.seed);
  fact("text", of_saved(first, &CheckpointInfo::data_hash), of_saved(other, &CheckpointInfo::data_hash), saved);
  fact("tokenizer", tokenizer_fact(first), tokenizer_fact(other), saved);
  fact("batch", a.training.batch, b.training.batch);
  fact("context", a.model.context, b.model.context);
  fact("validation tokens", first_validation, other_validation,
       !first_validation.empty() && !other_validation.empty());
  fact("program", of_saved(first, &CheckpointInfo::writer), of_saved(other, &CheckpointInfo::writer), saved);
  pairing.initial_values = pair_initial_values(exec, a, b);
  pairing.differences = config_differences(a, b);
  return pairing;
}

std::vector<std::string> Pairing::unpaired() const {
  std::vector<std::string> names;
  for (const PairedFact& fact : facts)
    if (!fact.equal()) names.push_back(fact.what);
  if (!initial_values.paired()) names.emplace_back("initial values");
  return names;
}

namespace {

/// The rows of every run by step, for the steps that all of them have. The last row of a step counts.
template <class Row>
std::map<long, std::vector<Row>> common_rows(std::span<const ComparedRun> runs,
                                             std::vector<Row> MetricsHistory::* rows) {
  std::map<long, std::vector<Row>> common;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    std::map<long, Row> of_run;
    for (const Row& row : runs[r].metrics.*rows) of_run[row.step] = row;
    for (const auto& [step, row] : of_run)
      if (r == 0 || common.count(step) > 0) common[step].push_back(row);
    std::erase_if(common, [&](const auto& entry) { return entry.second.size() != r + 1; });
  }
  return common;
}

/// Means over rows (step)(run), at least one of them.
TrainingWindow training_window(std::span<const std::vector<StepMetrics>> rows) {
  TrainingWindow window{rows.front()[0].step, rows.back()[0].step, {}, {}};
  const double n = double(rows.size());
  for (std::size_t r = 0; r < rows.front().size(); ++r) {
    double loss = 0, gap = 0, squares = 0;
    for (const auto& row : rows) {
      loss += row[r].loss;
      gap += row[r].loss - row[0].loss;
    }
    for (const auto& row : rows) {
      const double deviation = row[r].loss - row[0].loss - gap / n;
      squares += deviation * deviation;
    }
    window.loss.push_back(loss / n);
    window.gap_error.push_back(n > 1 ? std::sqrt(squares / (n - 1) / n) : 0);
  }
  return window;
}

}  // namespace

LossComparison compare_losses(std::span<const ComparedRun> runs) {
  LossComparison comparison;
  comparison.incomparable.resize(runs.size());
  for (const auto& [step, rows] : common_rows(runs, &MetricsHistory::evaluations)) {
    ValidationRow row;
    row.step = step;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      row.loss.push_back(rows[r].validation_loss);
      row.bits_per_byte.push_back(rows[r].bits_per_byte);
      if (rows[r].validation_hash != rows[0].validation_hash)
        comparison.incomparable[r] =
            fmt::format("evaluated on other tokens than A (hash {}, A's is {})",
                        rows[r].validation_hash.substr(0, 12), rows[0].validation_hash.substr(0, 12));
    }
    comparison.validation.push_back(row);
  }

  std::vector<std::vector<StepMetrics>> steps;
  for (auto& [step, rows] : common_rows(runs, &MetricsHistory::steps)) steps.push_back(rows);
  const std::size_t windows = std::min<std::size_t>(10, steps.size());
  for (std::size_t w = 0; w < windows; ++w) {
    const std::size_t begin = w * steps.size() / windows, end = (w + 1) * steps.size() / windows;
    comparison.training.push_back(training_window(std::span(steps).subspan(begin, end - begin)));
  }
  return comparison;
}

RunComparison compare_runs(const ExecSpace& exec, std::span<const ComparedRun> runs) {
  RunComparison comparison;
  comparison.runs = runs;
  for (const ComparedRun& other : runs.subspan(1)) comparison.pairings.push_back(pair_runs(exec, runs[0], other));
  comparison.losses = compare_losses(runs);
  std::vector<const AttentionReader*> readers;
  for (const ComparedRun& run : runs) readers.push_back(run.attention ? &*run.attention : nullptr);
  comparison.attention = with_remedy([&] { return compare_attention(readers); });
  return comparison;
}

}  // namespace dekoder
