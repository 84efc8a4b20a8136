// SPDX-License-Identifier: Apache-2.0
// `dekoder compare`: what differs between runs. The first run, A, is what the others are compared with.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "commands/attention_comparison.hpp"
#include "config/run_config_yaml.hpp"
#include "io/run/checkpoint.hpp"
#include "io/run/metrics_log.hpp"
#include "io/run/run_directory.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// A run as its directory tells it; it may still be training.
struct ComparedRun {
  std::string name;  ///< the directory, as given
  RunConfig config;
  std::optional<RunStatus> status;
  bool running = false;                 ///< a trainer is at work in the directory
  std::optional<CheckpointInfo> saved;  ///< fields of the newest checkpoint; none before the first
  MetricsHistory metrics;
  std::optional<AttentionReader> attention;  ///< none where the run has no attention.h5
};

/// Reads a run directory. Throws DataError naming the file and what to do where it is missing, truncated, damaged
/// or of another run.
ComparedRun read_compared_run(const std::filesystem::path& root);

/// One thing that runs have in common where they are a pair, as both have it.
struct PairedFact {
  std::string what;  ///< "seed"
  std::string first, other;
  bool known = true;  ///< false: one of the runs does not say
  bool equal() const { return known && first == other; }
};

/// The initial values of two runs, drawn again from seed and configuration and compared bit for bit.
struct InitialValuesPairing {
  std::size_t equal = 0;                            ///< tensors that both have with the same values
  std::vector<std::string> different, other_shape;  ///< tensors that both have
  std::vector<std::string> only_first, only_other;  ///< tensors that one of them has
  bool paired() const { return equal > 0 && different.empty() && other_shape.empty(); }
};

/// Whether another run is paired with A: same seed, same data in the same order, same initial values of what both
/// have. What then differs is the configuration alone.
struct Pairing {
  /// Seed, text, tokenizer, batch, context: what the order of the data follows from. Equal validation tokens show
  /// that the text was split at the same place. Another backend or precision (program) rounds differently.
  std::vector<PairedFact> facts;
  InitialValuesPairing initial_values;
  std::vector<ConfigDifference> differences;  ///< before: A's value, now: the other's
  /// What is not the same, or not known to be: names of facts, and "initial values".
  std::vector<std::string> unpaired() const;
};
Pairing pair_runs(const ExecSpace& exec, const ComparedRun& first, const ComparedRun& other);

/// Validation losses of all runs after one step.
struct ValidationRow {
  long step = 0;
  std::vector<double> loss;           ///< (run) nats per token
  std::vector<double> bits_per_byte;  ///< (run)
};

/// Training losses of all runs over the same steps.
struct TrainingWindow {
  long first_step = 0, last_step = 0;  ///< both included
  std::vector<double> loss;            ///< (run) mean over the steps, nats per token
  std::vector<double> gap_error;       ///< (run) standard error of the mean of the steps' gaps to A; 0 for A
};

/// Losses over what all runs have logged.
struct LossComparison {
  std::vector<ValidationRow> validation;  ///< every step that all runs were evaluated at
  /// (run) empty: the same validation tokens as A's; else why its validation loss has no gap to A's.
  std::vector<std::string> incomparable;
  std::vector<TrainingWindow> training;  ///< the common steps in at most 10 windows of nearly equal length
};
LossComparison compare_losses(std::span<const ComparedRun> runs);

struct RunComparison {
  std::span<const ComparedRun> runs;
  std::vector<Pairing> pairings;  ///< (run - 1)
  LossComparison losses;
  AttentionComparison attention;
};

/// Compares runs[1], runs[2], ... with runs[0]; `runs` must outlive the result.
RunComparison compare_runs(const ExecSpace& exec, std::span<const ComparedRun> runs);

}  // namespace dekoder
