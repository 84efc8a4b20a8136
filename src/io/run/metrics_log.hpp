// SPDX-License-Identifier: Apache-2.0
// metrics.jsonl: one JSON object per line, one line per optimizer step, per evaluation, per probe of a captured
// step and per restart. Numbers are printed so that reading gives back the same bits; NaN and infinities, which
// JSON lacks, are null.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/run_config_yaml.hpp"
#include "io/files/append_log.hpp"

namespace dekoder {

struct StepMetrics {
  long step = 0;             ///< optimizer steps done, this one included
  double loss = 0;           ///< mean cross-entropy of the global batch, nats per token
  double learning_rate = 0;  ///< used in this step
  double gradient_norm = 0;  ///< global, before clipping
  std::uint64_t tokens = 0;  ///< training tokens so far
  // What differs from run to run comes last.
  double tokens_per_second = 0;  ///< of this step, over all ranks, without what is done by period
  /// Wall time by phase since the row before: data, forward, ..., and evaluation, save, ... where there was one.
  std::vector<std::pair<std::string, double>> seconds = {};
  /// Mean of the batch, nats per token, beside the loss; NaN, and no "z_loss", where the run has none.
  double z_loss = std::numeric_limits<double>::quiet_NaN();
  bool skipped = false;  ///< it was not finite, and changed nothing; "skipped":true
};

/// Of one of several token files.
struct SourceMetrics {
  std::string tokens;  ///< the file, as the configuration names it
  double weight = 0;   ///< its share of the samples
  double validation_loss = 0;
  double bits_per_byte = 0;
  std::uint64_t validation_tokens = 0;
};

struct EvaluationMetrics {
  long step = 0;               ///< optimizer steps done before
  double validation_loss = 0;  ///< nats per token
  double bits_per_byte = 0;
  std::uint64_t tokens = 0;                 ///< validation tokens
  std::string validation_hash;              ///< of the validation tokens: equal hashes make losses comparable
  std::vector<SourceMetrics> sources = {};  ///< of a mixture, those that have validation tokens
};

/// Statistics of every captured head on one probe, averaged over the probe's queries.
struct AttentionMetrics {
  long step = 0;                   ///< optimizer steps done before
  std::string probe;               ///< name without quotes and backslashes: "text_0"
  int layers = 0, heads = 0;       ///< captured ones
  std::vector<float> statistics;   ///< (layer, head, statistic)
  std::vector<std::string> names;  ///< of the statistics
};

/// The run went on from the checkpoint of this step, with these settings changed; the log was cut to it before.
struct RestartMetrics {
  long step = 0;
  std::vector<ConfigDifference> changes = {};
};
/// Its line, with the line end: {"step":200,"resumed":true,"changed":{"training.steps":["300","600"]}}; "changed"
/// is left out where nothing did.
std::string to_json_line(const RestartMetrics& metrics);

class MetricsLog {
 public:
  /// As AppendLog: `kept_bytes` is metrics_bytes of the checkpoint, 0 in a new run.
  MetricsLog(
      const std::filesystem::path& path, std::uint64_t kept_bytes, std::function<void()> require_ours = [] {})
      : log_(path, kept_bytes, std::move(require_ours)) {}

  void write(const StepMetrics& metrics);
  void write(const EvaluationMetrics& metrics);
  /// Throws ShapeError where the statistics are not (layers, heads, names).
  void write(const AttentionMetrics& metrics);
  void write(const RestartMetrics& metrics);
  void cut() { log_.cut(); }
  /// See AppendLog::durable_bytes.
  std::uint64_t durable_bytes() { return log_.durable_bytes(); }

 private:
  AppendLog log_;
};

/// The last line of an optimizer step, that of an evaluation, and the lowest validation losses.
struct LastMetrics {
  std::optional<StepMetrics> step;
  std::optional<EvaluationMetrics> evaluation;
  std::optional<EvaluationMetrics> best;                 ///< of those on the validation tokens of the last one
  std::optional<EvaluationMetrics> best_on_another_set;  ///< of all others: not comparable
};

/// Reads a log, also one that is being written; empty where there is none. Lines that are not whole are skipped.
/// Throws as read_text_file.
LastMetrics read_last_metrics(const std::filesystem::path& path);

/// The last `count` lines that are whole, at most; else as read_last_metrics.
std::vector<std::string> read_last_lines(const std::filesystem::path& path, std::size_t count);

/// Seconds that a step took, without what is done by period; 0 of one that was left out, as it counts for nothing.
struct StepTime {
  long step = 0;
  double seconds = 0;
};
/// Of every step that the log has, in its order; else as read_last_metrics.
std::vector<StepTime> read_step_times(const std::filesystem::path& path);

}  // namespace dekoder
