// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.hpp"

namespace dekoder {

/// How one tensor gets its initial values.
struct InitialValues {
  enum class Kind { constant, normal, uniform } kind = Kind::constant;
  double scale = 0;  ///< the constant; the standard deviation; the half-width around 0
};

/// One named, shaped slice of the flat buffers.
struct ParameterEntry {
  std::string name;        ///< "blocks.03.attention.qkv.weight"
  std::string axes;        ///< "3C,C": names of the axes, as shown by describe and stored in checkpoints
  std::vector<int> shape;  ///< extents, outermost first; rank 1 or 2
  bool decays = false;     ///< weight decay applies (matrices)
  InitialValues initial;
  std::size_t offset = 0;    ///< first element in the flat buffers
  bool whole = false;        ///< updated as a matrix, by one rank, with one moment
  bool averaged = false;     ///< a moving average of it is kept
  std::size_t size() const;  ///< elements
};

/// Names, shapes and places of all parameters, before any memory exists. The order of add() is the order in memory.
class ParameterLayout {
 public:
  /// Throws std::logic_error where the name exists already or the rank is not 1 or 2, ConfigError where a flat
  /// buffer would have more than 2^31 - 1 elements.
  void add(std::string name, std::string axes, std::vector<int> shape, bool decays, InitialValues initial);

  /// The same tensors in the same order. Those that `is_whole` picks are so; they begin and end at multiples of
  /// `alignment` elements, a multiple of decay_block. All are averaged or none. Throws as add().
  ParameterLayout for_update(const std::function<bool(const ParameterEntry&)>& is_whole, std::size_t alignment,
                             bool averaged) const;
  bool averaged() const { return !entries_.empty() && entries_.front().averaged; }

  const std::vector<ParameterEntry>& entries() const { return entries_; }
  /// Throws std::logic_error where there is no such name.
  const ParameterEntry& find(std::string_view name) const;
  /// Length of a flat buffer: every tensor starts at a multiple of decay_block elements; the gaps stay zero.
  std::size_t flat_size() const { return flat_size_; }
  /// Parameters without the gaps.
  std::size_t parameters() const;
  /// Name of the tensor that holds element `index` of a flat buffer.
  const ParameterEntry& owner_of(std::size_t index) const;

 private:
  /// Puts an entry behind the others, at a multiple of `alignment`, and ends there too.
  void place(ParameterEntry entry, std::size_t alignment);

  std::vector<ParameterEntry> entries_;
  std::size_t flat_size_ = 0;
};

/// Elements on the host.
using HostBuffer = Kokkos::View<Master*, Layout, Kokkos::HostSpace>;
/// The same, where the device copies to without a stop on the way.
using PinnedBuffer = Kokkos::View<Master*, Layout, PinnedSpace>;

/// A flat buffer with one element per parameter, as optimizers keep them and checkpoints store them by name.
struct NamedBuffer {
  std::string name;      ///< "parameters", "first_moment": the group in a checkpoint
  MasterTensor1 buffer;  ///< (flat_size) of a ParameterLayout; empty where ranks share it out
  /// The elements of an entry, and what is to be done with those that were read: entry after entry, in the order of
  /// the layout. Where they are not set they are the slice of `buffer`.
  std::function<HostBuffer(const ParameterEntry&)> get = {};
  std::function<void(const ParameterEntry&, const HostBuffer&)> put = {};
};

/// Whether a store keeps gradients: training needs them, inference does not.
enum class Gradients { kept, none };

/// Values and gradients of all parameters: two flat buffers (one AdamW launch, one reduction, one checkpoint
/// write); and the weights, which are the values as products read them: a third one of Stored, or the same memory
/// where that is no type of its own.
class ParameterStore {
 public:
  /// Allocates the buffers, zero. Without gradients that buffer and its slices are empty; what would write into
  /// them throws ShapeError.
  explicit ParameterStore(ParameterLayout layout, Gradients gradients = Gradients::kept);

  /// Draws the initial values, each element a function of (seed, tensor name, index) alone: models that share a
  /// tensor share its initial values.
  void initialise(const ExecSpace& exec, std::uint64_t seed);

  const ParameterLayout& layout() const { return layout_; }
  ConstMasterTensor1 values() const { return values_; }
  /// For those who write them: the weights are out of date from then on.
  const MasterTensor1& values_to_write() const {
    weights_are_current_ = false;
    return values_;
  }
  /// For an update that writes both alike, each weight as Stored(value): weights is empty where it is values'
  /// memory.
  struct ValuesAndWeights {
    MasterTensor1 values;
    StoredTensor1 weights;
  };
  ValuesAndWeights values_and_weights() const { return {values_, stored_is_short ? weights_ : StoredTensor1()}; }
  /// Weights = values, where they are out of date: every forward pass begins with it.
  void refresh_weights(const ExecSpace& exec) const;
  const MasterTensor1& gradients() const { return gradients_; }
  /// One flag per decay_block elements (kernels/adamw.hpp).
  const ByteTensor1& decay() const { return decay_; }

  /// Slices by name; the rank must be the entry's. Throws std::logic_error otherwise.
  ConstMasterTensor1 value1(std::string_view name) const;
  ConstMasterTensor2 value2(std::string_view name) const;
  MasterTensor1 gradient1(std::string_view name) const;
  MasterTensor2 gradient2(std::string_view name) const;
  ConstStoredTensor1 weight1(std::string_view name) const;
  ConstStoredTensor2 weight2(std::string_view name) const;

  /// The slice of any flat buffer of this layout (moments too), as (size).
  template <class Buffer>
  static Buffer flat_slice(const Buffer& buffer, const ParameterEntry& entry) {
    return Buffer(buffer.data() + entry.offset, entry.size());
  }

 private:
  ParameterLayout layout_;
  MasterTensor1 values_, gradients_;
  StoredTensor1 weights_;
  mutable bool weights_are_current_ = false;
  ByteTensor1 decay_;
};

}  // namespace dekoder
