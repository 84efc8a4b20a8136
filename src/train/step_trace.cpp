// SPDX-License-Identifier: Apache-2.0
#include "train/step_trace.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "data/batch_loader.hpp"
#include "tensor/region.hpp"

namespace dekoder {

namespace {

/// Looks at tensors on the host, one at a time.
class Examiner {
 public:
  template <class Tensor>
  void look(const std::string& name, const std::string& operation, long micro, const Tensor& tensor) {
    if (tensor.size() == 0) return;
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), tensor);
    TensorHealth health{name, operation, micro, host.size()};
    for (std::size_t i = 0; i < host.size(); ++i) {
      const double value = double(host.data()[i]);
      if (std::isfinite(value)) {
        health.largest = std::max(health.largest, std::abs(value));
        continue;
      }
      ++(std::isnan(value) ? health.nans : health.infinities);
      if (health.first < 0) health.first = std::int64_t(i);
    }
    bad_ = bad_ || health.first >= 0;
    tensors.push_back(std::move(health));
  }
  bool bad() const { return bad_; }

  std::vector<TensorHealth> tensors;

 private:
  bool bad_ = false;
};

void look_at_norm(Examiner& examiner, const std::string& name, long micro, const NormActivations& norm) {
  norm.sum.visit([&](const auto& sum) { examiner.look(name + ".sum", "residual add", micro, sum); });
  examiner.look(name + ".rstd", "1 / sqrt(variance + epsilon)", micro, norm.rstd);
  examiner.look(name + ".y", "normalisation", micro, norm.y);
}

/// What forward has left, in its order.
void look_at_forward(const ExecSpace& exec, Examiner& examiner, const TrainingModel& model,
                     const DropoutKey& dropout, long micro) {
  const DecoderActivations& saved = model.activations();
  const bool post = saved.final_norm.empty();
  if (post) examiner.look("embedded", "embedding", micro, saved.embedded.stored());
  for (std::size_t l = 0; l < saved.blocks.size(); ++l) {
    model.decoder().restore_block(exec, l, dropout, saved);
    exec.fence("dekoder::trace_step");
    const BlockActivations& block = saved.blocks[l];
    const std::string name = block_name(int(l));
    if (!post) look_at_norm(examiner, name + ".attention_norm", micro, block.attention_norm);
    examiner.look(name + ".attention.qkv", "linear C -> 3C", micro, block.attention.qkv);
    examiner.look(name + ".attention.lse", "log of the sum of exp(q k / sqrt(D))", micro, block.attention.lse);
    examiner.look(name + ".attention.attended", "attention", micro, block.attention.attended);
    look_at_norm(examiner, name + (post ? ".attention_norm" : ".feed_forward_norm"), micro,
                 post ? block.attention_norm : block.feed_forward_norm);
    examiner.look(name + ".feed_forward.hidden", "linear C -> F", micro, block.feed_forward.hidden);
    examiner.look(name + ".feed_forward.activated", "activation function", micro, block.feed_forward.activated);
    if (post) look_at_norm(examiner, name + ".feed_forward_norm", micro, block.feed_forward_norm);
  }
  for (const NormActivations& norm : saved.final_norm) look_at_norm(examiner, "final_norm", micro, norm);
}

/// Backward meets the parameters in the reverse order of forward. That is the layout's, but for norms behind their
/// sublayers (`post`), which the layout has in front of them.
std::vector<ParameterEntry> in_order_of_backward(std::vector<ParameterEntry> entries, bool post) {
  const auto block_of = [](const ParameterEntry& entry) { return entry.name.substr(0, entry.name.find('.', 7)); };
  const auto place = [](const ParameterEntry& entry) {
    constexpr std::array parts{".attention.", ".attention_norm.", ".feed_forward.", ".feed_forward_norm."};
    return std::find_if(parts.begin(), parts.end(),
                        [&](const char* part) { return entry.name.find(part) != std::string::npos; }) -
           parts.begin();
  };
  for (auto begin = entries.begin(); post && begin != entries.end();) {
    const auto end = std::find_if(begin, entries.end(),
                                  [&](const ParameterEntry& entry) { return block_of(entry) != block_of(*begin); });
    std::stable_sort(begin, end, [&](const auto& left, const auto& right) { return place(left) < place(right); });
    begin = end;
  }
  std::reverse(entries.begin(), entries.end());
  return entries;
}

}  // namespace

BlackBox black_box_of_step(const RunConfig& config, const DataMixture& data, const CheckpointInfo& state,
                           const std::vector<double>& losses, const std::string& reason, int ranks) {
  BlackBox box;
  box.step = state.step + 1;
  box.ranks = ranks;
  box.reason = reason;
  box.run_id = state.run_id;
  box.config_yaml = state.config_yaml;
  box.writer = state.writer;
  box.losses = losses;
  const long leaves = leaves_of_step(config, state.step);
  BatchLoader loader(data, config.training.seed, config.model.context, config.batch_of(state.step),
                     config.micro_batch(), 0, leaves, state.step, config.samples_before(state.step));
  for (long micro = 0; micro < leaves; ++micro) {
    const Batch& batch = loader.next();
    box.inputs.insert(box.inputs.end(), batch.inputs.data(), batch.inputs.data() + batch.inputs.size());
    box.targets.insert(box.targets.end(), batch.targets.data(), batch.targets.data() + batch.targets.size());
    for (int row = 0; row < config.micro_batch(); ++row) {
      box.sample_indices.push_back(batch.first_sample + std::uint64_t(row));
      const MixtureOrder::Place place = loader.order().place(box.sample_indices.back());
      box.sources.push_back(place.source);
      box.windows.push_back(place.window);
    }
  }
  return box;
}

void for_each_micro_batch(const ExecSpace& exec, TrainingModel& model, const BlackBox& box,
                          const std::function<bool(long micro, const DropoutKey&)>& compute) {
  const RunConfig& config = model.config();
  const auto B = std::size_t(config.micro_batch()), T = std::size_t(config.model.context);
  HostTokenTensor2 inputs("replay.inputs", B, T), targets("replay.targets", B, T);
  for (long micro = 0; micro < leaves_of_step(config, box.step - 1); ++micro) {
    const std::size_t begin = std::size_t(micro) * B * T;
    std::copy_n(box.inputs.begin() + long(begin), B * T, inputs.data());
    std::copy_n(box.targets.begin() + long(begin), B * T, targets.data());
    model.load(exec, inputs, targets);
    const DropoutKey dropout{Real(config.model.dropout), config.training.seed, std::uint64_t(box.step - 1),
                             box.sample_indices[std::size_t(micro) * B]};
    if (!compute(micro, dropout)) return;
  }
}

std::vector<TensorHealth> trace_step(const ExecSpace& exec, TrainingModel& model, const BlackBox& box) {
  const RunConfig& config = model.config();
  const auto& entries = model.store().layout().entries();
  const Real scale = Real(1 / (double(config.batch_of(box.step - 1)) * config.model.context));
  Examiner parameters;
  for (const ParameterEntry& entry : entries)
    parameters.look(entry.name, "parameter", -1, ParameterStore::flat_slice(model.store().values(), entry));
  const auto backward = in_order_of_backward(entries, config.model.norm == NormPlacement::post);
  Examiner examiner;
  for_each_micro_batch(exec, model, box, [&](long micro, const DropoutKey& dropout) {
    examiner = Examiner();
    Kokkos::deep_copy(exec, model.store().gradients(), Master(0));
    model.accumulate_gradients(exec, dropout, scale);
    exec.fence("dekoder::trace_step");
    look_at_forward(exec, examiner, model, dropout, micro);
    examiner.look("losses", "head and cross-entropy", micro, model.activations().losses);
    for (const ParameterEntry& entry : backward)
      examiner.look("gradient of " + entry.name, "backward", micro,
                    ParameterStore::flat_slice(model.store().gradients(), entry));
    return !examiner.bad();
  });
  Kokkos::deep_copy(exec, model.store().gradients(), Master(0));
  exec.fence("dekoder::trace_step");
  parameters.tensors.insert(parameters.tensors.end(), examiner.tensors.begin(), examiner.tensors.end());
  return parameters.tensors;
}

bool all_finite(const BlackBox& box) {
  return std::all_of(box.tensors.begin(), box.tensors.end(), [](const auto& tensor) { return tensor.first < 0; });
}

std::string first_bad_tensor_text(const BlackBox& box) {
  if (all_finite(box))
    return "every tensor is finite when the step is computed once more on one rank: the memory or processor of a "
           "node may have failed";
  const auto bad =
      std::find_if(box.tensors.begin(), box.tensors.end(), [](const auto& tensor) { return tensor.first >= 0; });
  std::string where;
  if (bad->micro >= 0) {
    int rank = 0;
    while (leaves_of(rank, box.ranks, long(box.losses.size())).end <= bad->micro) ++rank;
    where = fmt::format(", micro-batch {}{}", bad->micro, box.ranks > 1 ? fmt::format(" of rank {}", rank) : "");
  }
  return fmt::format("first bad tensor: {} ({}{}), with {} NaN and {} Inf among {} elements, the first at {}{}",
                     bad->name, bad->operation, where, bad->nans, bad->infinities, bad->elements, bad->first,
                     bad->nans + bad->infinities == bad->elements
                         ? ""
                         : fmt::format("; the largest of the others is {:.3g}", bad->largest));
}

}  // namespace dekoder
