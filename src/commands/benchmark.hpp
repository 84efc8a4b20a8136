// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/run_config.hpp"
#include "parallel/communicator.hpp"

namespace dekoder {

/// What `dekoder bench` found. Rates are of the median step.
struct BenchmarkResult {
  int steps = 0;
  double step_seconds_median = 0, step_seconds_least = 0;
  double tokens_per_second = 0;
  double flops_per_token = 0;  ///< model_summary.hpp
  double optimizer_flops = 0;  ///< the same
  double gflops = 0;           ///< tokens/s times FLOPs per token
  double gemm_gflops =
      0;  ///< this machine's rate at 2048^3 through the gemm seam: best of two sittings, around the steps
  double share_of_gemm = 0;            ///< gflops / gemm_gflops
  double memory_bytes_per_step = 0;    ///< that passes move, of one rank (model_summary.hpp)
  double memory_bytes_per_second = 0;  ///< a + s b into c, 64 MiB each: best of two sittings
  double peak_memory_bytes = 0;        ///< of the process
  int ranks = 1;
  double bytes_per_step = 0;   ///< that all ranks together send: gradients to their owners, parameters back
  double exposed_seconds = 0;  ///< of a step, in which rank 0 did nothing but wait for messages: mean
  std::vector<std::pair<std::string, double>> phase_seconds;  ///< per step, means over steps timed with fences
};

/// Trains on random tokens: micro-batches of config.micro_batch() up to the batch, one optimizer step each time.
/// Two steps warm up; `steps` steps are timed (0: as many as fill ten seconds, at least three); two more are timed
/// by phase.
BenchmarkResult benchmark(const RunConfig& config, int steps, const Communicator& ranks);

std::string benchmark_text(const RunConfig& config, const BenchmarkResult& result);
std::string benchmark_json(const RunConfig& config, const BenchmarkResult& result);

}  // namespace dekoder
