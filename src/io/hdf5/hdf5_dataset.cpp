// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5/hdf5_dataset.hpp"

#include <fmt/ranges.h>

#include <array>

#include "base/error.hpp"
#include "io/hdf5/hdf5_call.hpp"

namespace dekoder {

using namespace hdf5;

Hdf5Dataset::Hdf5Dataset(std::string file, std::string name, Hdf5Handle handle)
    : file_(std::move(file)), name_(std::move(name)), handle_(std::move(handle)) {
  const Hdf5Handle space = checked(H5Dget_space(handle_.id()), Kind::dataspace, file_, name_, "no shape");
  shape_ = space_extents(space.id(), file_, name_);
  const Hdf5Handle type = checked(H5Dget_type(handle_.id()), Kind::datatype, file_, name_, "no element type");
  type_ = number_type(type.id(), file_, name_);
}

std::size_t Hdf5Dataset::size() const {
  return product(shape_);
}

std::vector<std::size_t> Hdf5Dataset::chunk() const {
  const Call call;
  const Hdf5Handle creation =
      checked(H5Dget_create_plist(handle_.id()), Kind::property_list, file_, name_, "its layout cannot be read");
  if (H5Pget_layout(creation.id()) != H5D_CHUNKED) return {};
  std::vector<hsize_t> chunk(shape_.size());
  if (H5Pget_chunk(creation.id(), static_cast<int>(chunk.size()), chunk.data()) < 0)
    fail(file_, name_, "its layout cannot be read");
  return Extents(chunk.begin(), chunk.end());
}

void Hdf5Dataset::require_type(Hdf5Type expected) const {
  if (type_ != expected)
    throw DataError("{}:{}: holds {}, expected {}", file_, name_, hdf5_type_name(type_), hdf5_type_name(expected));
}

Hdf5Handle Hdf5Dataset::select(std::span<const std::size_t> offset, std::span<const std::size_t> count,
                               std::size_t bytes, Hdf5Type type) const {
  require_type(type);
  const bool whole = count.empty();
  const std::size_t elements = whole ? size() : product(count);
  if (bytes != elements * type_bytes(type))
    throw ShapeError(fmt::format("{}:{}: {} elements in memory for {} in the file", file_, name_,
                                 bytes / type_bytes(type), elements));
  Hdf5Handle space = checked(H5Dget_space(handle_.id()), Kind::dataspace, file_, name_, "no shape");
  if (whole) return space;
  bool inside = offset.size() == shape_.size() && count.size() == shape_.size();
  for (std::size_t axis = 0; inside && axis < shape_.size(); ++axis)
    inside = offset[axis] <= shape_[axis] && count[axis] <= shape_[axis] - offset[axis];
  if (!inside)
    throw ShapeError(fmt::format("{}:{}: elements ({}) from ({}) on are outside of ({})", file_, name_,
                                 fmt::join(count, ","), fmt::join(offset, ","), fmt::join(shape_, ",")));
  if (H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, to_hdf5(offset).data(), nullptr, to_hdf5(count).data(),
                          nullptr) < 0)
    fail(file_, name_, "no hyperslab");
  return space;
}

namespace {

/// Memory of the shape of the selected block: with shapes that differ HDF5 maps element by element, at a tenth of
/// the speed.
Hdf5Handle memory_space(hid_t file_space, const std::string& file, const std::string& name) {
  const int rank = H5Sget_simple_extent_ndims(file_space);
  if (rank <= 0) return checked(H5Screate(H5S_SCALAR), Kind::dataspace, file, name, "no memory space");
  std::array<hsize_t, H5S_MAX_RANK> first{}, last{};
  if (H5Sget_select_bounds(file_space, first.data(), last.data()) < 0) fail(file, name, "no memory space");
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(rank); ++axis) last[axis] -= first[axis] - 1;
  return checked(H5Screate_simple(rank, last.data(), nullptr), Kind::dataspace, file, name, "no memory space");
}

}  // namespace

void Hdf5Dataset::read_slab(std::span<const std::size_t> offset, std::span<const std::size_t> count,
                            std::span<std::byte> values, Hdf5Type type, Hdf5Checksums checksums) const {
  const Call call;
  const Hdf5Handle file_space = select(offset, count, values.size(), type);
  if (values.empty()) return;
  const Hdf5Handle memory = memory_space(file_space.id(), file_, name_);
  const Hdf5Handle transfer =
      checked(H5Pcreate(H5P_DATASET_XFER), Kind::property_list, file_, name_, "no transfer properties");
  if (checksums == Hdf5Checksums::ignored && H5Pset_edc_check(transfer.id(), H5Z_DISABLE_EDC) < 0)
    fail(file_, name_, "no transfer properties");
  if (H5Dread(handle_.id(), type_ids(type).memory, memory.id(), file_space.id(), transfer.id(), values.data()) < 0)
    fail(file_, name_, "cannot be read");
}

void Hdf5Dataset::write_slab(std::span<const std::size_t> offset, std::span<const std::size_t> count,
                             std::span<const std::byte> values, Hdf5Type type) {
  const Call call;
  const Hdf5Handle file_space = select(offset, count, values.size(), type);
  if (values.empty()) return;
  const Hdf5Handle memory = memory_space(file_space.id(), file_, name_);
  if (H5Dwrite(handle_.id(), type_ids(type).memory, memory.id(), file_space.id(), H5P_DEFAULT, values.data()) < 0)
    fail(file_, name_, "cannot be written");
}

void Hdf5Dataset::extend(std::size_t rows) {
  const Call call;
  Extents shape = shape_;
  shape.at(0) = rows;
  if (H5Dset_extent(handle_.id(), to_hdf5(shape).data()) < 0) fail(file_, name_, "cannot be extended");
  shape_ = std::move(shape);
}

void Hdf5Dataset::close() {
  const Call call;
  if (!handle_.close()) fail(file_, name_, "cannot be written");
}

}  // namespace dekoder
