// SPDX-License-Identifier: Apache-2.0
#include "commands/training_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "io/files/fault_point.hpp"
#include "kernels/gemm.hpp"
#include "tensor/random_stream.hpp"
#include "train/training_model.hpp"

namespace dekoder {

namespace {

/// Small enough for a second, with every kind of layer.
RunConfig tiny_config(int batch) {
  RunConfig config;
  ModelConfig& model = config.model;
  model.layers = 2;
  model.heads = 2;
  model.channels = 32;
  model.feed_forward = 64;
  model.context = 16;
  model.vocabulary = 64;
  model.positions = Positions::learned;
  model.dropout = 0.1;
  config.training.steps = 10;
  config.training.batch = batch;
  config.training.micro_batch = 1;
  config.training.learning_rate = 1e-2;
  config.training.warmup_steps = 2;
  return config;
}

/// A text that can be learnt: every token follows from the one before.
void fill(HostTokenTensor2 inputs, HostTokenTensor2 targets, std::uint64_t first_sample) {
  for (std::size_t b = 0; b < inputs.extent(0); ++b) {
    auto token = Token((first_sample + b) * 7 % 64);
    for (std::size_t t = 0; t < inputs.extent(1); ++t) {
      inputs(b, t) = token;
      token = (5 * token + 3) % 64;
      targets(b, t) = token;
    }
  }
}

struct Numbers {
  std::vector<double> losses;  ///< of each step, nats per token
  std::uint64_t digest = 0;    ///< of the parameters at the end
  bool operator==(const Numbers&) const = default;
};

/// The training of `config`, as Trainer does it.
Numbers train(const RunConfig& config, const Communicator& ranks) {
  const ExecSpace exec;
  TrainingModel model(config, ranks);
  model.store().initialise(exec, config.training.seed);
  const auto B = std::size_t(config.micro_batch()), T = std::size_t(config.model.context);
  HostTokenTensor2 inputs("selftest.inputs", B, T), targets("selftest.targets", B, T);
  const double tokens = double(config.training.batch) * config.model.context;
  Numbers numbers;
  for (long step = 0; step < config.training.steps; ++step) {
    std::vector<double> losses(std::size_t(model.reducer().leaves_of_step()), 0);
    const LeafRange& leaves = model.reducer().leaves();
    for (long leaf = leaves.begin; leaf < leaves.end; ++leaf) {
      const auto sample = std::uint64_t(step * config.training.batch) + std::uint64_t(leaf) * B;
      fill(inputs, targets, sample);
      model.load(exec, inputs, targets);
      const DropoutKey dropout{Real(config.model.dropout), config.training.seed, std::uint64_t(step), sample};
      losses[std::size_t(leaf)] = model.leaf_gradients(exec, dropout, Real(1 / tokens)) / tokens;
    }
    ranks.unite(losses);
    numbers.losses.push_back(std::accumulate(losses.begin(), losses.end(), 0.0));
    model.update(exec, step);
  }
  numbers.digest = model.parameter_digest();
  return numbers;
}

/// The loss of a fixed batch and its gradients, as a training computes them, at any parameters.
class LossAt {
 public:
  LossAt() : model_(config()), batch_(model_.config().training.batch) {
    model_.store().initialise(exec_, model_.config().training.seed);
    HostTokenTensor2 inputs("selftest.inputs", std::size_t(batch_), context()),
        targets("selftest.targets", std::size_t(batch_), context());
    fill(inputs, targets, 0);
    model_.load(exec_, inputs, targets);
  }
  /// Nats per token.
  double operator()(const HostBuffer& values) {
    Kokkos::deep_copy(model_.store().values_to_write(), values);
    Kokkos::deep_copy(exec_, model_.store().gradients(), Master(0));
    const double tokens = double(batch_) * double(context());
    const double sum = model_.accumulate_gradients(exec_, DropoutKey{}, Real(1 / tokens));
    exec_.fence("dekoder::selftest");
    return sum / tokens;
  }
  HostBuffer values() const { return on_host(model_.store().values()); }
  HostBuffer gradients() const { return on_host(model_.store().gradients()); }
  const std::vector<ParameterEntry>& entries() const { return model_.store().layout().entries(); }

 private:
  static RunConfig config() {
    RunConfig config = tiny_config(8);
    config.training.micro_batch = config.training.batch;
    config.model.dropout = 0;
    return config;
  }
  std::size_t context() const { return std::size_t(model_.config().model.context); }
  template <class Buffer>
  static HostBuffer on_host(const Buffer& buffer) {
    const HostBuffer copy("selftest.copy", buffer.size());
    Kokkos::deep_copy(copy, buffer);
    return copy;
  }

  ExecSpace exec_;
  TrainingModel model_;
  int batch_;
};

/// Of train(tiny_config(8)) with OpenMP and AVX-512. SSE 4.1 and AVX2, with the products that go with them, differ
/// by up to 5e-8 of them; products of 10 or 11 bits (TF32, half precision) by a thousandth.
constexpr std::array golden_losses =
    std::to_array<double>({4.1639149394, 4.0805792585, 3.9156519156, 3.8021031376, 3.6581573468, 3.5474451222,
                           3.3972098380, 3.3014454115, 3.2388213221, 3.1776382830});
/// Relative. In bf16 losses are off by 6e-4, with each of the ways that products of it go on CPUs.
constexpr double golden_tolerance = stored_is_short ? 3e-3 : 2e-5;

}  // namespace

/// Of each tensor the derivatives along its own gradient, which shows a wrong scale best, and along random signs,
/// which show what is missing in the gradient, against central differences (f(x + h d) - f(x - h d)) / 2 h. The
/// loss, a mean of 128 of about 4, is good to some 1e-7 in fp32, hence a difference to 1e-7 / 2 h, of tensors whose
/// gradient has a norm of 1e-3 and more; what h leaves of the third derivative is up to 1.3 % of the norm.
Finding check_gradients() {
  constexpr double relative = 0.04, absolute = 3e-5;
  constexpr int directions = 5;
  LossAt loss;
  const HostBuffer values = loss.values(), moved("selftest.moved", values.size());
  loss(values);
  const HostBuffer gradients = loss.gradients();
  const RandomStream signs(1, site_of("selftest.signs"));
  std::string worst;
  double worst_share = -1;
  for (const ParameterEntry& entry : loss.entries()) {
    Master* gradient = gradients.data() + entry.offset;
    if (fault_point("selftest:gradient"))
      std::fill(gradient + entry.size() / 2, gradient + entry.size(), Master(0));
    const double norm = std::sqrt(std::inner_product(gradient, gradient + entry.size(), gradient, 0.0));
    if (!(norm > 0)) return {true, fmt::format("the gradient of {} has the norm {}", entry.name, norm)};
    for (int direction = 0; direction < directions; ++direction) {
      const double h = direction == 0 ? 0.02 : 0.003;
      const auto d = [&](std::size_t i) {
        if (direction == 0) return double(gradient[i]) / norm;
        return (signs.bits32(entry.offset + i) >> direction & 1) != 0 ? 1.0 : -1.0;
      };
      double derivative = 0;
      for (std::size_t i = 0; i < entry.size(); ++i) derivative += d(i) * double(gradient[i]);
      std::array<double, 2> at{};
      for (const int side : {0, 1}) {
        Kokkos::deep_copy(moved, values);
        for (std::size_t i = 0; i < entry.size(); ++i)
          moved(entry.offset + i) += Master((side == 0 ? h : -h) * d(i));
        at[std::size_t(side)] = loss(moved);
      }
      const double difference = (at[0] - at[1]) / (2 * h);
      const double share = std::abs(difference - derivative) / (relative * norm + absolute);
      if (!(share <= 1))
        return {true, fmt::format("the derivative of the loss along direction {} of {} is {:.6g} by the gradient, "
                                  "and {:.6g} by finite differences",
                                  direction + 1, entry.name, derivative, difference)};
      if (share > worst_share) {
        worst_share = share;
        worst = entry.name;
      }
    }
  }
  return {false, fmt::format("those of {} tensors are what finite differences along {} directions say; the worst, "
                             "{}, takes {:.0f} % of the tolerance",
                             loss.entries().size(), directions, worst, 100 * worst_share)};
}

Finding check_losses() {
  const RunConfig config = tiny_config(8);
  Numbers first = train(config, Communicator::single());
  const Numbers again = train(config, Communicator::single());
  if (fault_point("selftest:loss")) first.losses[4] *= 1 + 50 * golden_tolerance;
  if (fault_point("selftest:bits")) first.digest ^= 1;
  double worst = 0;
  for (std::size_t step = 0; step < golden_losses.size(); ++step) {
    const double difference = std::abs(first.losses[step] / golden_losses[step] - 1);
    if (!(difference <= golden_tolerance))
      return {true, fmt::format("step {}: the loss is {:.8f}, expected {:.8f}", step + 1, first.losses[step],
                                golden_losses[step])};
    worst = std::max(worst, difference);
  }
  if (first != again) return {true, "the same training twice, and other bits the second time"};
  return {false, fmt::format("{} steps as recorded (to {:.1e} of them, up to {:.0e} is allowed), twice with the "
                             "same bits; products by {}",
                             golden_losses.size(), worst, golden_tolerance, product_library())};
}

Finding check_ranks(const Communicator& ranks) {
  const RunConfig config = tiny_config(std::max(8, ranks.size()));
  Numbers together = train(config, ranks);
  if (fault_point("selftest:ranks")) together.digest ^= 1;
  Finding finding{false, fmt::format("{} ranks train as one does, to the last bit", ranks.size())};
  Numbers alone;
  ranks.on_root([&] { alone = train(config, Communicator::single()); });
  alone.digest = ranks.from_root(alone.digest);
  if (together.digest != alone.digest || (ranks.root() && together != alone))
    finding = {true, "its parameters are not those of one rank alone"};
  return finding;
}

}  // namespace dekoder
