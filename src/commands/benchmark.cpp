// SPDX-License-Identifier: Apache-2.0
#include "commands/benchmark.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/decimal.hpp"
#include "base/elapsed.hpp"
#include "config/config_fields.hpp"
#include "kernels/gemm.hpp"
#include "model/model_summary.hpp"
#include "parallel/threads.hpp"
#include "tensor/region.hpp"
#include "train/training_model.hpp"

namespace dekoder {

namespace {

using Clock = std::chrono::steady_clock;

/// Best rate of a few products of 2048^3, in GFLOP/s.
double gemm_rate(const ExecSpace& exec) {
  constexpr int n = 2048;
  const StoredTensor2 a("bench.a", n, n), b("bench.b", n, n), c("bench.c", n, n);
  Kokkos::deep_copy(a, Stored(Real(0.5)));
  Kokkos::deep_copy(b, Stored(Real(0.25)));
  double best = 0;
  for (int repeat = 0; repeat < 6; ++repeat) {
    exec.fence();
    const auto begin = Clock::now();
    gemm(exec, Op::none, Op::transpose, 1, a, b, 0, c);
    exec.fence();
    best = std::max(best, 2.0 * n * n * n / seconds_since(begin) * 1e-9);
  }
  return best;
}

/// Best rate of a few triads c = a + s b (McCalpin's STREAM) over 64 MiB each, in bytes/s.
double memory_rate(const ExecSpace& exec) {
  const std::size_t n = (std::size_t{64} << 20) / sizeof(Master);
  const MasterTensor1 a("bench.a", n), b("bench.b", n), c("bench.c", n);
  double best = 0;
  for (int repeat = 0; repeat < 6; ++repeat) {
    exec.fence();
    const auto begin = Clock::now();
    Kokkos::parallel_for(
        "dekoder::bench::triad", Kokkos::RangePolicy<ExecSpace, Kokkos::IndexType<long>>(exec, 0, long(n)),
        KOKKOS_LAMBDA(long i) { c(i) = a(i) + Master(3) * b(i); });
    exec.fence();
    best = std::max(best, 3.0 * double(n) * sizeof(Master) / seconds_since(begin));
  }
  return best;
}

HostTokenTensor2 random_tokens(const RunConfig& config, std::uint64_t site) {
  HostTokenTensor2 tokens("bench.tokens", std::size_t(config.micro_batch()), std::size_t(config.model.context));
  const RandomStream stream(config.training.seed, site);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens.data()[i] = static_cast<Token>(stream.bits32(i) % std::uint32_t(config.model.vocabulary));
  return tokens;
}

/// One optimizer step on random tokens.
void one_step(const ExecSpace& exec, TrainingModel& model, long step, PhaseClock* clock) {
  const Region region("step");
  const RunConfig& config = model.config();
  const auto batch = std::uint64_t(config.training.batch), B = std::uint64_t(config.micro_batch());
  const Real scale = Real(1) / Real(double(batch) * config.model.context);
  if (clock != nullptr) clock->start(exec);
  const LeafRange& leaves = model.reducer().leaves();
  for (long leaf = leaves.begin; leaf < leaves.end; ++leaf) {
    const DropoutKey dropout{Real(config.model.dropout), config.training.seed, std::uint64_t(step),
                             std::uint64_t(step) * batch + std::uint64_t(leaf) * B};
    model.leaf_gradients(exec, dropout, scale, clock);
  }
  model.update(exec, step, clock);
  exec.fence("dekoder::bench");
}

using Json = nlohmann::ordered_json;

/// The settings of model and training as one JSON object: {"model.layers": 4, ...}.
Json settings_json(const RunConfig& config) {
  Json settings = Json::object();
  visit_fields(config, [&](std::string_view key, const auto& value, const Range&) {
    using Value = std::remove_cvref_t<decltype(value)>;
    if (!key.starts_with("model.") && !key.starts_with("training.")) return;
    if constexpr (std::is_enum_v<Value>)
      settings[std::string(key)] = names_of(value)[static_cast<std::size_t>(value)];
    else if constexpr (std::is_arithmetic_v<Value>)
      settings[std::string(key)] = value;
  });
  return settings;
}

double peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) * 1024;
}

}  // namespace

BenchmarkResult benchmark(const RunConfig& config, int steps, const Communicator& ranks) {
  const ExecSpace exec;
  BenchmarkResult result;
  result.gemm_gflops = gemm_rate(exec);
  result.memory_bytes_per_second = memory_rate(exec);
  TrainingModel model(config, ranks);
  model.store().initialise(exec, config.training.seed);
  model.load(exec, random_tokens(config, site_of("bench.inputs")), random_tokens(config, site_of("bench.targets")));
  long step = 0;
  for (int warm_up = 0; warm_up < 2; ++warm_up) one_step(exec, model, step++, nullptr);

  std::vector<double> seconds;
  const auto begin = Clock::now();
  const std::size_t least = 3;
  const auto goes_on = [&] {
    const bool more =
        steps > 0 ? seconds.size() < std::size_t(steps) : seconds.size() < least || seconds_since(begin) < 10;
    return ranks.from_root(more);
  };
  while (goes_on()) {
    const auto step_begin = Clock::now();
    one_step(exec, model, step++, nullptr);
    seconds.push_back(seconds_since(step_begin));
    result.exposed_seconds += model.reducer().exposed_seconds();
  }
  PhaseClock clock;
  constexpr int phase_steps = 2;
  for (int i = 0; i < phase_steps; ++i) one_step(exec, model, step++, &clock);
  for (const auto& [phase, total] : clock.seconds()) result.phase_seconds.emplace_back(phase, total / phase_steps);
  result.gemm_gflops = std::max(result.gemm_gflops, gemm_rate(exec));
  result.memory_bytes_per_second = std::max(result.memory_bytes_per_second, memory_rate(exec));

  result.steps = int(seconds.size());
  result.ranks = ranks.size();
  result.exposed_seconds /= result.steps;
  std::vector<double> sent(std::size_t(ranks.size()), 0);
  sent[std::size_t(ranks.rank())] = double(model.reducer().bytes_sent());
  ranks.unite(sent);
  for (const double bytes : sent) result.bytes_per_step += bytes;
  std::sort(seconds.begin(), seconds.end());
  result.step_seconds_least = seconds.front();
  result.step_seconds_median = seconds[seconds.size() / 2];
  result.tokens_per_second = double(config.training.batch) * config.model.context / result.step_seconds_median;
  result.flops_per_token = flops_per_token(config.model);
  result.gflops = result.tokens_per_second * result.flops_per_token * 1e-9;
  result.share_of_gemm = result.gflops / result.gemm_gflops;
  result.memory_bytes_per_step = bytes_per_step(config, model.reducer().leaves().size());
  result.optimizer_flops = optimizer_flops(config);
  result.peak_memory_bytes = peak_memory();
  return result;
}

std::string benchmark_text(const RunConfig& config, const BenchmarkResult& result) {
  const ModelConfig& model = config.model;
  std::string text = fmt::format(
      "model             L={} H={} C={} F={} T={} V={}, batch {} in micro-batches of {}, {} on {}, {} threads\n",
      model.layers, model.heads, model.channels, model.feed_forward, model.context, model.vocabulary,
      config.training.batch, config.micro_batch(), precision_name, ExecSpace::name(), ExecSpace().concurrency());
  text +=
      fmt::format("tokens/s          {:>12.1f}  (median of {} steps, {:.4f} s each; least {:.4f} s)\n",
                  result.tokens_per_second, result.steps, result.step_seconds_median, result.step_seconds_least);
  text += fmt::format("GFLOP/s           {:>12.1f}  ({:.4g} FLOPs per token, causal count)\n", result.gflops,
                      result.flops_per_token);
  if (result.optimizer_flops > 0)
    text += fmt::format(
        "FLOPs of Muon     {:>12.4g}  (per step, of all ranks; not counted above: {:.1f} % more)\n",
        result.optimizer_flops,
        100 * result.optimizer_flops / (result.flops_per_token * double(config.training.batch) * model.context));
  text += fmt::format("GEMM GFLOP/s      {:>12.1f}  (2048^3 in this run)\n", result.gemm_gflops);
  text += fmt::format("share of GEMM     {:>12.1f} %\n", 100 * result.share_of_gemm);
  text +=
      fmt::format("bytes per step    {:>12.4g}  (each pass its tensors once; {:.1f} GB/s of the median step)\n",
                  result.memory_bytes_per_step, result.memory_bytes_per_step / result.step_seconds_median * 1e-9);
  text += fmt::format("memory GB/s       {:>12.1f}  (c = a + s b in this run)\n",
                      result.memory_bytes_per_second * 1e-9);
  text += fmt::format("peak memory       {:>12.2f} GiB\n", result.peak_memory_bytes / (1024.0 * 1024 * 1024));
  if (result.ranks > 1)
    text += fmt::format(
        "ranks             {:>12}  (tokens/s and GFLOP/s of all, the rest of rank 0; {} per step sent by all; "
        "{:.4f} s "
        "per step waited for messages, in whatever phase)\n",
        result.ranks, bytes_text(std::size_t(result.bytes_per_step)), result.exposed_seconds);
  text += fmt::format("matrix products   {}\n", product_library());
  if (const std::string effect = product_library_effect(); !effect.empty()) text += fmt::format("  {}\n", effect);
  double total = 0;
  for (const auto& [phase, seconds] : result.phase_seconds) total += seconds;
  for (const auto& [phase, seconds] : result.phase_seconds)
    text += fmt::format("  {:<15} {:>12.4f} s  {:>5.1f} %\n", phase, seconds, 100 * seconds / total);
  return text;
}

std::string benchmark_json(const RunConfig& config, const BenchmarkResult& result) {
  const ThreadFacts threads = thread_facts();
  const Json report = {{"tokens_per_second", result.tokens_per_second},
                       {"gflops", result.gflops},
                       {"gemm_gflops", result.gemm_gflops},
                       {"share_of_gemm", result.share_of_gemm},
                       {"flops_per_token", result.flops_per_token},
                       {"optimizer_flops", result.optimizer_flops},
                       {"memory_bytes_per_step", result.memory_bytes_per_step},
                       {"memory_bytes_per_second", result.memory_bytes_per_second},
                       {"steps", result.steps},
                       {"step_seconds_median", result.step_seconds_median},
                       {"step_seconds_least", result.step_seconds_least},
                       {"batch", config.training.batch},
                       {"micro_batch", config.micro_batch()},
                       {"ranks", result.ranks},
                       {"bytes_per_step", result.bytes_per_step},
                       {"exposed_seconds", result.exposed_seconds},
                       {"context", config.model.context},
                       {"peak_memory_bytes", result.peak_memory_bytes},
                       {"threads", ExecSpace().concurrency()},
                       {"cores", threads.cores},
                       {"machine_cores", threads.machine_cores},
                       {"binding", threads.binding},
                       {"real", precision_name},
                       {"backend", ExecSpace::name()},
                       {"product_library", product_library()},
                       {"config", settings_json(config)},
                       {"phase_seconds", Json::object_t(result.phase_seconds.begin(), result.phase_seconds.end())}};
  return report.dump() + "\n";
}

}  // namespace dekoder
