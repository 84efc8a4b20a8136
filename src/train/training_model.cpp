// SPDX-License-Identifier: Apache-2.0
#include "train/training_model.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "base/elapsed.hpp"
#include "io/files/fault_point.hpp"
#include "io/files/xxh64.hpp"
#include "io/run/checkpoint.hpp"
#include "kernels/reduction.hpp"
#include "model/model_summary.hpp"
#include "tensor/region.hpp"

namespace dekoder {

void PhaseClock::start(const ExecSpace& exec) {
  exec.fence("dekoder::phase_clock");
  last_ = std::chrono::steady_clock::now();
}

void PhaseClock::lap(const ExecSpace& exec, const std::string& phase) {
  exec.fence("dekoder::phase_clock");
  const auto now = std::chrono::steady_clock::now();
  const double elapsed = seconds_between(last_, now);
  last_ = now;
  const auto found =
      std::find_if(seconds_.begin(), seconds_.end(), [&](const auto& entry) { return entry.first == phase; });
  if (found == seconds_.end())
    seconds_.emplace_back(phase, elapsed);
  else
    found->second += elapsed;
}

namespace {

/// Of gradients that travel together: so much that a network's rate counts, not its latency.
std::size_t bucket_bytes() {
  const char* asked = std::getenv("DEKODER_BUCKET_BYTES");  // the launcher has checked it
  return asked != nullptr ? std::size_t(std::atol(asked)) : std::size_t{8} << 20;
}

}  // namespace

Shards shards_of(const ModelConfig& model, const ParameterLayout& layout, int ranks) {
  std::vector<std::size_t> finished = backward_borders(layout, model.layers);
  finished.insert(finished.begin(), 0);
  return Shards(layout.flat_size(), std::size_t(reduction_leaf), finished, bucket_bytes() / sizeof(Master), ranks,
                whole_ranges(layout));
}

std::string loss_is_not_finite(long step, double loss) {
  return fmt::format("step {}: the loss is {}", step, std::abs(loss));
}

long leaves_of_step(const RunConfig& config, long step) {
  return config.batch_of(step) / config.micro_batch();
}

std::vector<long> leaves_of_steps(const RunConfig& config) {
  std::vector<long> leaves = {config.training.batch / config.micro_batch()};
  for (const int size : config.training.batch_warmup) leaves.push_back(size / config.micro_batch());
  return leaves;
}

TrainingModel::TrainingModel(const RunConfig& config, const Communicator& ranks)
    : config_(config),
      ranks_(ranks),
      store_(run_parameters(config)),
      borders_(backward_borders(store_.layout(), config.model.layers)),
      shards_(shards_of(config.model, store_.layout(), ranks.size())),
      reducer_(std::make_unique<GradientReducer>(ranks_, shards_, store_, leaves_of_steps(config)[0])),
      optimizer_(config.model, store_.layout(), ranks, shards_.owned(ranks.rank())),
      decoder_(config.model, store_),
      arena_(dekoder::activation_bytes(config.model, config.micro_batch())),
      activations_(arena_, config.model, config.micro_batch()),
      inputs_("inputs", std::size_t(config.micro_batch()), std::size_t(config.model.context)),
      targets_("targets", std::size_t(config.micro_batch()), std::size_t(config.model.context)) {}

void TrainingModel::prepare_step(long step) {
  const long leaves = leaves_of_step(config_, step);
  if (reducer_->leaves_of_step() == leaves) return;
  reducer_.reset();  // its memory first
  reducer_ = std::make_unique<GradientReducer>(ranks_, shards_, store_, leaves);
}

void TrainingModel::load(const ExecSpace& exec, HostTokenTensor2 inputs, HostTokenTensor2 targets) {
  const Region region("load");
  Kokkos::deep_copy(exec, inputs_, inputs);
  Kokkos::deep_copy(exec, targets_, targets);
  exec.fence("dekoder::load");
}

std::vector<NamedBuffer> TrainingModel::state() const {
  std::vector<NamedBuffer> buffers = optimizer_.state();
  buffers.insert(buffers.begin(), {parameter_group, store_.values_to_write()});
  if (ranks_.size() > 1 || shards_.whole().empty()) return buffers;
  // One that does not hold all tensors is no flat buffer.
  NamedBuffer& second = buffers[second_moment];
  const auto slice = [this, flat = second.buffer](const ParameterEntry& entry) {
    const long begin = long(parts_of(second_moment, entry).front().place);
    return rows(flat, begin, begin + long(entry.size()));
  };
  second.get = [slice](const ParameterEntry& entry) {
    return HostBuffer(Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), slice(entry)));
  };
  second.put = [slice](const ParameterEntry& entry, const HostBuffer& tensor) {
    Kokkos::deep_copy(slice(entry), tensor);
  };
  return buffers;
}

std::vector<OwnedPart> TrainingModel::parts_of(std::size_t buffer, const ParameterEntry& entry) const {
  if (!in_group(state_groups[buffer], entry)) return {};
  const FlatRange range{entry.offset, entry.offset + entry.size()};
  return buffer == second_moment ? shards_.parts_beside_whole(range) : shards_.parts_of(range);
}

std::uint64_t TrainingModel::parameter_digest() const {
  const auto values = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), store_.values());
  Xxh64 hash;
  hash.update(std::as_bytes(std::span(values.data(), values.size())));
  return hash.digest();
}

double TrainingModel::accumulate_gradients(const ExecSpace& exec, const DropoutKey& dropout, Real grad_scale,
                                           PhaseClock* clock, const std::function<void(std::size_t)>& part_done) {
  const auto done = [&](std::size_t from) {
    if (part_done) part_done(from);
  };
  decoder_.forward(exec, inputs_, dropout, activations_);
  if (clock != nullptr) clock->lap(exec, "forward");
  const double loss_sum = decoder_.loss_backward(exec, targets_, grad_scale, activations_);
  done(borders_.back());
  if (clock != nullptr) clock->lap(exec, "head and loss");
  decoder_.backward(exec, inputs_, dropout, activations_, [&](int block) { done(borders_[std::size_t(block)]); });
  if (clock != nullptr) clock->lap(exec, "backward");
  return loss_sum;
}

double TrainingModel::leaf_gradients(const ExecSpace& exec, const DropoutKey& dropout, Real grad_scale,
                                     PhaseClock* clock, const std::function<void()>& between) {
  if (fault_point("train:gradients"))
    Kokkos::deep_copy(exec, Kokkos::subview(store_.gradients(), 0), std::numeric_limits<Master>::quiet_NaN());
  const bool last = ++leaves_done_ == reducer_->leaves().size();
  const double loss_sum = accumulate_gradients(exec, dropout, grad_scale, clock, [&](std::size_t from) {
    if (last) reducer_->part_done(exec, from);
    if (between) between();
  });
  if (!last) {
    reducer_->leaf_done(exec);
    return loss_sum;
  }
  leaves_done_ = 0;
  reducer_->finish(exec);
  if (clock != nullptr && ranks_.size() > 1) clock->lap(exec, "messages");
  return loss_sum;
}

void TrainingModel::initialise(const ExecSpace& exec) {
  store_.initialise(exec, config_.training.seed);
  optimizer_.begin_average(exec, store_);
}

void TrainingModel::with_average(const ExecSpace& exec, const std::function<void()>& body) {
  const auto change_places = [&] {
    if (!store_.layout().averaged()) return;
    optimizer_.exchange_average(exec, store_);
    reducer_->share_values(exec);
  };
  change_places();
  body();
  change_places();
}

double TrainingModel::update(const ExecSpace& exec, long step, PhaseClock* clock) {
  const double norm = optimizer_.step(exec, config_.training, step, store_);
  if (clock != nullptr) clock->lap(exec, "optimizer");
  reducer_->share_values(exec);
  if (clock != nullptr && ranks_.size() > 1) clock->lap(exec, "messages");
  return norm;
}

}  // namespace dekoder
