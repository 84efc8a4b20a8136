// SPDX-License-Identifier: Apache-2.0
#include "train/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/accumulate.hpp"
#include "kernels/adamw.hpp"
#include "kernels/reduction.hpp"
#include "tensor/region.hpp"

namespace dekoder {

double learning_rate(const TrainingConfig& training, long step) {
  const double peak = training.learning_rate, last = training.final_learning_rate;
  const double t = static_cast<double>(step), warmup = static_cast<double>(training.warmup_steps);
  if (step < training.warmup_steps) return peak * (t + 1) / warmup;
  const double progress = std::min(1.0, (t - warmup) / std::max(1.0, double(training.steps) - 1 - warmup));
  switch (training.schedule) {
    case Schedule::constant:
      return peak;
    case Schedule::linear:
      return peak + (last - peak) * progress;
    case Schedule::cosine:
      return last + (peak - last) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
    case Schedule::wsd: {
      const double after_warmup = double(training.steps) - warmup;
      const double decay_steps =
          std::max(1.0, std::min(training.decay_fraction * double(training.steps), after_warmup));
      const double into_decay = t - (double(training.steps) - 1 - decay_steps);
      return peak + (last - peak) * std::clamp(into_decay / decay_steps, 0.0, 1.0);
    }
    case Schedule::inverse_sqrt:
      return peak * std::sqrt(std::max(warmup, 1.0) / (t + 1));
  }
  throw std::logic_error("learning_rate: unknown schedule");
}

std::optional<LearningRateJump> learning_rate_jump(const TrainingConfig& before, const TrainingConfig& now,
                                                   long step) {
  if (step < 1) return std::nullopt;
  const LearningRateJump change{learning_rate(before, step - 1), learning_rate(now, step)};
  // What either schedule does by itself from one step to the next, in a warm-up or a decay, is no jump.
  const double by_itself = std::max(std::abs(learning_rate(before, step) - learning_rate(before, step - 1)),
                                    std::abs(learning_rate(now, step) - learning_rate(now, step - 1)));
  const double size = std::abs(change.next - change.last);
  const bool jumps = size > 2 * by_itself && size > 0.05 * std::max(change.last, change.next);
  return jumps ? std::optional(change) : std::nullopt;
}

std::vector<FlatRange> whole_ranges(const ParameterLayout& layout) {
  constexpr std::size_t unit = std::size_t(reduction_leaf);
  std::vector<FlatRange> ranges;
  for (const ParameterEntry& entry : layout.entries())
    if (entry.whole) ranges.push_back({entry.offset, (entry.offset + entry.size() + unit - 1) / unit * unit});
  return ranges;
}

LargestMatrix largest_matrix(const std::vector<HiddenMatrix>& matrices) {
  LargestMatrix largest;
  for (const HiddenMatrix& matrix : matrices) {
    largest.elements = std::max(largest.elements, matrix.size());
    largest.shorter_side = std::max(largest.shorter_side, std::size_t(std::min(matrix.rows, matrix.columns)));
  }
  return largest;
}

namespace {

MuonScratch scratch_for(const LargestMatrix& largest) {
  return largest.elements == 0 ? MuonScratch() : MuonScratch(largest.elements, largest.shorter_side);
}

std::vector<HiddenMatrix> owned_matrices(const ModelConfig& model, const ParameterLayout& layout,
                                         const std::vector<FlatRange>& owned) {
  std::vector<HiddenMatrix> matrices = hidden_matrices(model, layout);
  std::erase_if(matrices, [&](const HiddenMatrix& matrix) {
    return std::none_of(owned.begin(), owned.end(), [&](const FlatRange& range) {
      return range.begin <= matrix.offset && matrix.offset + matrix.size() <= range.end;
    });
  });
  return matrices;
}

}  // namespace

Optimizer::Optimizer(const ModelConfig& model, const ParameterLayout& layout, const Communicator& ranks,
                     std::vector<FlatRange> owned)
    : ranks_(ranks),
      owned_(std::move(owned)),
      by_adamw_(without(owned_, whole_ranges(layout))),
      by_muon_(owned_matrices(model, layout, owned_)),
      scratch_(scratch_for(largest_matrix(hidden_matrices(model, layout)))),
      first_moment_("optimizer.first_moment", elements_of(owned_)),
      second_moment_("optimizer.second_moment", elements_of(by_adamw_)),
      average_(layout.averaged() ? MasterTensor1("optimizer.average", elements_of(owned_)) : MasterTensor1()),
      norm_partials_("optimizer.norm_partials", std::size_t(reduction_leaves(layout.flat_size()))),
      leaf_squares_(norm_partials_.size()) {}

Optimizer::Optimizer(const ModelConfig& model, const ParameterLayout& layout)
    : Optimizer(model, layout, Communicator::single(), {{0, layout.flat_size()}}) {}

long Optimizer::place_in(const std::vector<FlatRange>& ranges, std::size_t element) {
  std::size_t place = 0;
  for (const FlatRange& range : ranges) {
    if (element < range.end) return long(place + element - range.begin);
    place += range.size();
  }
  throw std::logic_error("Optimizer: an element of another rank");
}

double Optimizer::norm_of_gradients(const ExecSpace& exec, const ParameterStore& store) {
  std::fill(leaf_squares_.begin(), leaf_squares_.end(), 0.0);
  for (const FlatRange& range : owned_) {
    const long first = long(range.begin) / reduction_leaf;
    const auto sums = leaf_sums_of_squares(exec, rows(store.gradients(), long(range.begin), long(range.end)),
                                           rows(norm_partials_, first, long(norm_partials_.size())));
    std::copy(sums.begin(), sums.end(), leaf_squares_.begin() + first);
  }
  ranks_.unite(leaf_squares_);
  return std::sqrt(sum_of_leaves(leaf_squares_));
}

long Optimizer::first_bad_gradient(const ExecSpace& exec, const ParameterStore& store) const {
  long first = std::numeric_limits<long>::max();
  for (const FlatRange& range : owned_) {
    const long index = first_non_finite(exec, rows(store.gradients(), long(range.begin), long(range.end)));
    if (index >= 0) first = std::min(first, long(range.begin) + index);
  }
  first = ranks_.min(first);
  return first == std::numeric_limits<long>::max() ? -1 : first;
}

double Optimizer::step(const ExecSpace& exec, const TrainingConfig& training, long step,
                       const ParameterStore& store) {
  const Region region("optimizer");
  const double norm = norm_of_gradients(exec, store);
  if (!std::isfinite(norm)) {
    const long index = first_bad_gradient(exec, store);
    const std::string where =
        index < 0 ? "its numbers are finite, their norm is too large"
                  : "the first of them is of " + store.layout().owner_of(static_cast<std::size_t>(index)).name;
    throw DivergedError("step {}: the gradient is not finite ({})", step + 1, where);
  }
  AdamWStep adam;
  adam.learning_rate = static_cast<Real>(learning_rate(training, step));
  adam.beta1 = static_cast<Real>(training.beta1);
  adam.beta2 = static_cast<Real>(training.beta2);
  adam.epsilon = static_cast<Real>(training.epsilon);
  adam.weight_decay = static_cast<Real>(training.weight_decay);
  if (training.clip_norm > 0)
    adam.gradient_scale = static_cast<Real>(std::min(1.0, training.clip_norm / (norm + 1e-6)));
  adam.bias_correction1 = 1 - std::pow(training.beta1, double(step + 1));
  adam.bias_correction2 = 1 - std::pow(training.beta2, double(step + 1));
  const auto [values, weights] = store.values_and_weights();
  for (const FlatRange& range : by_adamw_) {
    const long begin = long(range.begin), end = long(range.end), first = place_in(owned_, range.begin),
               second = place_in(by_adamw_, range.begin);
    adamw(exec, adam, rows(store.decay(), begin / decay_block, end / decay_block),
          rows(store.gradients(), begin, end), rows(values, begin, end),
          rows(first_moment_, first, first + end - begin), rows(second_moment_, second, second + end - begin),
          stored_is_short ? rows(weights, begin, end) : weights);
  }
  const MuonStep of_muon{adam.learning_rate, static_cast<Real>(training.momentum), adam.weight_decay,
                         adam.gradient_scale};
  for (const HiddenMatrix& matrix : by_muon_) {
    const auto of = [&]<class Flat>(const Flat& flat, long begin) {
      return reshape<Kokkos::View<typename Flat::value_type**, Layout, MemSpace>>(
          rows(flat, begin, begin + long(matrix.size())), matrix.rows, matrix.columns);
    };
    const long begin = long(matrix.offset);
    muon(exec, of_muon, norm_partials_, scratch_, of(store.gradients(), begin), of(values, begin),
         of(first_moment_, place_in(owned_, matrix.offset)),
         stored_is_short ? of(weights, begin) : StoredTensor2());
  }
  const double steps = double(step + 1), decay = std::min(training.average, (1 + steps) / (10 + steps));
  for_each_average([&](long begin, long end, const MasterTensor1& average) {
    move_towards(exec, static_cast<Real>(1 - decay), rows(values, begin, end), average);
  });
  return norm;
}

template <class Body>
void Optimizer::for_each_average(const Body& body) const {
  if (average_.size() == 0) return;
  for (const FlatRange& range : owned_) {
    const long place = place_in(owned_, range.begin);
    body(long(range.begin), long(range.end), rows(average_, place, place + long(range.size())));
  }
}

void Optimizer::begin_average(const ExecSpace& exec, const ParameterStore& store) {
  for_each_average([&](long begin, long end, const MasterTensor1& average) {
    Kokkos::deep_copy(exec, average, rows(store.values(), begin, end));
  });
}

void Optimizer::exchange_average(const ExecSpace& exec, const ParameterStore& store) {
  for_each_average([&](long begin, long end, const MasterTensor1& average) {
    exchange(exec, rows(store.values_to_write(), begin, end), average);
  });
}

}  // namespace dekoder
