// SPDX-License-Identifier: Apache-2.0
// metrics.jsonl: one JSON object per line, one line per optimizer step and per evaluation. Numbers are printed so
// that reading gives back the same bits; NaN and infinities, which JSON lacks, are null.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "io/append_log.hpp"

namespace dekoder {

struct StepMetrics {
  long step = 0;                 ///< optimizer steps done, this one included
  double loss = 0;               ///< mean cross-entropy of the global batch, nats per token
  double learning_rate = 0;      ///< used in this step
  double gradient_norm = 0;      ///< global, before clipping
  std::uint64_t tokens = 0;      ///< training tokens so far
  double tokens_per_second = 0;  ///< over all ranks; the one column that differs from run to run
};

struct EvaluationMetrics {
  long step = 0;               ///< optimizer steps done before
  double validation_loss = 0;  ///< nats per token
  double bits_per_byte = 0;
  std::uint64_t tokens = 0;     ///< validation tokens
  std::string validation_hash;  ///< of the validation tokens: equal hashes make losses comparable
};

class MetricsLog {
 public:
  /// As AppendLog: `kept_bytes` is metrics_bytes of the checkpoint, 0 in a new run.
  MetricsLog(const std::filesystem::path& path, std::uint64_t kept_bytes) : log_(path, kept_bytes) {}

  void write(const StepMetrics& metrics);
  void write(const EvaluationMetrics& metrics);
  /// See AppendLog::durable_bytes.
  std::uint64_t durable_bytes() { return log_.durable_bytes(); }

 private:
  AppendLog log_;
};

/// The last lines of each kind.
struct LastMetrics {
  std::optional<StepMetrics> step;
  std::optional<EvaluationMetrics> evaluation;
};

/// Reads a log, also one that is being written; empty where there is none. Lines that are not whole are skipped.
LastMetrics read_last_metrics(const std::filesystem::path& path);

}  // namespace dekoder
