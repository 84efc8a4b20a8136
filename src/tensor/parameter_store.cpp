// SPDX-License-Identifier: Apache-2.0
#include "tensor/parameter_store.hpp"

#include <algorithm>
#include <climits>
#include <utility>

#include "base/error.hpp"
#include "tensor/decay_block.hpp"
#include "tensor/random_stream.hpp"

namespace dekoder {

namespace {

/// One tensor of a flat buffer; Tensor's rank must be the entry's.
template <class Tensor, class Buffer>
Tensor slice(const Buffer& buffer, const ParameterEntry& entry) {
  if (entry.shape.size() != Tensor::rank())
    throw std::logic_error(
        fmt::format("parameter {} has rank {}, not {}", entry.name, entry.shape.size(), Tensor::rank()));
  if (buffer.data() == nullptr) return {};
  auto* first = buffer.data() + entry.offset;
  if constexpr (Tensor::rank() == 1)
    return Tensor(first, static_cast<std::size_t>(entry.shape[0]));
  else
    return Tensor(first, static_cast<std::size_t>(entry.shape[0]), static_cast<std::size_t>(entry.shape[1]));
}

}  // namespace

std::size_t ParameterEntry::size() const {
  std::size_t elements = 1;
  for (int extent : shape) elements *= static_cast<std::size_t>(extent);
  return elements;
}

void ParameterLayout::add(std::string name, std::string axes, std::vector<int> shape, bool decays,
                          InitialValues initial) {
  const auto same_name = [&](const ParameterEntry& entry) { return entry.name == name; };
  if (std::any_of(entries_.begin(), entries_.end(), same_name))
    throw std::logic_error(fmt::format("parameter {} was added twice", name));
  if (shape.empty() || shape.size() > 2)
    throw std::logic_error(fmt::format("parameter {} has rank {}; expected 1 or 2", name, shape.size()));
  place({std::move(name), std::move(axes), std::move(shape), decays, initial}, decay_block);
}

void ParameterLayout::place(ParameterEntry entry, std::size_t alignment) {
  const auto aligned = [&](std::size_t place) { return (place + alignment - 1) / alignment * alignment; };
  entry.offset = aligned(flat_size_);
  flat_size_ = aligned(entry.offset + entry.size());
  if (flat_size_ > std::size_t(INT_MAX))
    throw ConfigError(
        "the model has more than {} parameters, up to {} alone; this version counts them in 32 bits: lower "
        "model.layers, model.channels, model.feed_forward or model.vocabulary",
        INT_MAX, entry.name);
  entries_.push_back(std::move(entry));
}

ParameterLayout ParameterLayout::for_update(const std::function<bool(const ParameterEntry&)>& is_whole,
                                            std::size_t alignment, bool averaged) const {
  ParameterLayout layout;
  for (ParameterEntry entry : entries_) {
    entry.whole = is_whole(entry);
    entry.averaged = averaged;
    layout.place(entry, entry.whole ? alignment : decay_block);
  }
  return layout;
}

const ParameterEntry& ParameterLayout::find(std::string_view name) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const ParameterEntry& entry) { return entry.name == name; });
  if (found == entries_.end()) throw std::logic_error(fmt::format("there is no parameter {}", name));
  return *found;
}

std::size_t ParameterLayout::parameters() const {
  std::size_t total = 0;
  for (const ParameterEntry& entry : entries_) total += entry.size();
  return total;
}

const ParameterEntry& ParameterLayout::owner_of(std::size_t index) const {
  const auto after = std::upper_bound(entries_.begin(), entries_.end(), index,
                                      [](std::size_t i, const ParameterEntry& entry) { return i < entry.offset; });
  if (after == entries_.begin()) throw std::logic_error("owner_of: there are no parameters");
  return *(after - 1);
}

namespace {

/// Memory for the weights of `values`; their own where both have one type.
template <class Weights, class Values>
Weights weights_of(const Values& values) {
  if constexpr (std::is_same_v<Weights, Values>)
    return values;
  else
    return Weights("parameters.weights", values.size());
}

}  // namespace

ParameterStore::ParameterStore(ParameterLayout layout, Gradients gradients)
    : layout_(std::move(layout)),
      values_("parameters.values", layout_.flat_size()),
      gradients_(gradients == Gradients::none ? MasterTensor1()
                                              : MasterTensor1("parameters.gradients", layout_.flat_size())),
      weights_(weights_of<StoredTensor1>(values_)),
      decay_("parameters.decay", layout_.flat_size() / decay_block) {
  const auto flags = Kokkos::create_mirror_view(decay_);
  for (const ParameterEntry& entry : layout_.entries()) {
    const std::size_t begin = entry.offset / decay_block,
                      end = begin + (entry.size() + decay_block - 1) / decay_block;
    for (std::size_t block = begin; block < end; ++block) flags(block) = entry.decays ? 1 : 0;
  }
  Kokkos::deep_copy(decay_, flags);
}

void ParameterStore::initialise(const ExecSpace& exec, std::uint64_t seed) {
  for (const ParameterEntry& entry : layout_.entries()) {
    const MasterTensor1 value = flat_slice(values_to_write(), entry);
    const RandomStream stream(seed, site_of(entry.name.c_str()));
    const InitialValues initial = entry.initial;
    Kokkos::parallel_for(
        "dekoder::initialise", Kokkos::RangePolicy<ExecSpace, Kokkos::IndexType<long>>(exec, 0, long(entry.size())),
        KOKKOS_LAMBDA(long i) {
          const auto index = static_cast<std::uint64_t>(i);
          double drawn = initial.scale;
          if (initial.kind == InitialValues::Kind::normal) drawn *= stream.normal(index);
          if (initial.kind == InitialValues::Kind::uniform) drawn *= 2.0 * stream.uniform(index) - 1.0;
          value(i) = static_cast<Master>(drawn);
        });
  }
  exec.fence("dekoder::initialise");
}

void ParameterStore::refresh_weights(const ExecSpace& exec) const {
  if (stored_is_short && !weights_are_current_) {
    const StoredTensor1 weights = weights_;
    const MasterTensor1 values = values_;
    Kokkos::parallel_for(
        "dekoder::weights", Kokkos::RangePolicy<ExecSpace, Kokkos::IndexType<long>>(exec, 0, long(values.size())),
        KOKKOS_LAMBDA(long i) { weights(i) = values(i); });
  }
  weights_are_current_ = true;
}

ConstMasterTensor1 ParameterStore::value1(std::string_view name) const {
  return slice<MasterTensor1>(values_, layout_.find(name));
}
ConstMasterTensor2 ParameterStore::value2(std::string_view name) const {
  return slice<MasterTensor2>(values_, layout_.find(name));
}
MasterTensor1 ParameterStore::gradient1(std::string_view name) const {
  return slice<MasterTensor1>(gradients_, layout_.find(name));
}
MasterTensor2 ParameterStore::gradient2(std::string_view name) const {
  return slice<MasterTensor2>(gradients_, layout_.find(name));
}

ConstStoredTensor1 ParameterStore::weight1(std::string_view name) const {
  return slice<StoredTensor1>(weights_, layout_.find(name));
}
ConstStoredTensor2 ParameterStore::weight2(std::string_view name) const {
  return slice<StoredTensor2>(weights_, layout_.find(name));
}

}  // namespace dekoder
