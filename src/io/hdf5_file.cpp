// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5_file.hpp"

#include <fmt/ranges.h>
#include <hdf5.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <utility>

#include "base/error.hpp"

namespace dekoder {

static_assert(std::is_same_v<hid_t, std::int64_t>);

std::recursive_mutex& hdf5_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

namespace {

using Kind = Hdf5Handle::Kind;
using Extents = std::vector<std::size_t>;

/// Holds the lock and keeps HDF5 from printing (a setting of each thread).
class Hdf5Call {
 public:
  Hdf5Call() : lock_(hdf5_mutex()) { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

 private:
  std::lock_guard<std::recursive_mutex> lock_;
};

/// HDF5's own account of the call that failed last: its innermost entry, where the cause is.
std::string failure_reason() {
  std::string reason;
  const auto take_innermost = [](unsigned depth, const H5E_error2_t* entry, void* text) -> herr_t {
    if (depth == 0 && entry->desc != nullptr) *static_cast<std::string*>(text) = entry->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, &reason);
  if (reason.find("already open for write") != std::string::npos)
    return "its writer never closed it (killed, or still at work)";
  if (reason.find("filter returned failure during read") != std::string::npos)
    return "damaged: a checksum (Fletcher32) of its data does not match";
  // "file write failed: time = ..., errno = 28, error message = 'No space left on device', buf = ..."
  constexpr std::string_view mark = "error message = '";
  if (const std::size_t begin = reason.find(mark); begin != std::string::npos) {
    const std::size_t from = begin + mark.size();
    return reason.substr(0, reason.find(':')) + ": " + reason.substr(from, reason.find('\'', from) - from);
  }
  return reason.empty() ? "HDF5 gives no reason" : reason;
}

[[noreturn]] void fail(const std::string& file, std::string_view object, std::string_view what) {
  const std::string reason = failure_reason();
  throw DataError("{}{}{}: {}: {}", file, object.empty() ? "" : ":", object, what, reason);
}

/// A handle of what an HDF5 call returned; throws where the call failed.
Hdf5Handle checked(hid_t id, Kind kind, const std::string& file, std::string_view object, std::string_view what) {
  if (id < 0) fail(file, object, what);
  return Hdf5Handle(id, kind);
}

struct TypePair {
  hid_t little, big, memory;
};

TypePair type_ids(Hdf5Type type) {
  switch (type) {
    case Hdf5Type::int8:
      return {H5T_STD_I8LE, H5T_STD_I8BE, H5T_NATIVE_INT8};
    case Hdf5Type::int16:
      return {H5T_STD_I16LE, H5T_STD_I16BE, H5T_NATIVE_INT16};
    case Hdf5Type::int32:
      return {H5T_STD_I32LE, H5T_STD_I32BE, H5T_NATIVE_INT32};
    case Hdf5Type::int64:
      return {H5T_STD_I64LE, H5T_STD_I64BE, H5T_NATIVE_INT64};
    case Hdf5Type::uint8:
      return {H5T_STD_U8LE, H5T_STD_U8BE, H5T_NATIVE_UINT8};
    case Hdf5Type::uint16:
      return {H5T_STD_U16LE, H5T_STD_U16BE, H5T_NATIVE_UINT16};
    case Hdf5Type::uint32:
      return {H5T_STD_U32LE, H5T_STD_U32BE, H5T_NATIVE_UINT32};
    case Hdf5Type::uint64:
      return {H5T_STD_U64LE, H5T_STD_U64BE, H5T_NATIVE_UINT64};
    case Hdf5Type::float32:
      return {H5T_IEEE_F32LE, H5T_IEEE_F32BE, H5T_NATIVE_FLOAT};
    case Hdf5Type::float64:
      return {H5T_IEEE_F64LE, H5T_IEEE_F64BE, H5T_NATIVE_DOUBLE};
  }
  throw std::logic_error("unknown Hdf5Type");
}

std::size_t type_bytes(Hdf5Type type) {
  constexpr std::array<std::size_t, 10> bytes = {1, 2, 4, 8, 1, 2, 4, 8, 4, 8};
  return bytes[static_cast<std::size_t>(type)];
}

const char* class_name(H5T_class_t type_class) {
  switch (type_class) {
    case H5T_INTEGER:
      return "integers of an unusual kind";
    case H5T_FLOAT:
      return "floating-point numbers of an unusual kind";
    case H5T_STRING:
      return "text";
    case H5T_COMPOUND:
      return "compounds";
    case H5T_ENUM:
      return "enumerators";
    case H5T_VLEN:
      return "lists of variable length";
    case H5T_REFERENCE:
      return "references";
    default:
      return "values of an unusual kind";
  }
}

/// The type of a dataset's or attribute's elements; throws where they are no plain numbers.
Hdf5Type number_type(hid_t type_id, const std::string& file, std::string_view object) {
  for (int index = 0; index < 10; ++index) {
    const TypePair ids = type_ids(static_cast<Hdf5Type>(index));
    if (H5Tequal(type_id, ids.little) > 0 || H5Tequal(type_id, ids.big) > 0) return static_cast<Hdf5Type>(index);
  }
  throw DataError("{}:{}: holds {}, expected plain numbers", file, object, class_name(H5Tget_class(type_id)));
}

Extents space_extents(hid_t space, const std::string& file, std::string_view object) {
  const int rank = H5Sget_simple_extent_ndims(space);
  if (rank < 0) fail(file, object, "its shape cannot be read");
  std::array<hsize_t, H5S_MAX_RANK> extents{};
  if (H5Sget_simple_extent_dims(space, extents.data(), nullptr) < 0) fail(file, object, "its shape cannot be read");
  if (H5Sget_simple_extent_type(space) == H5S_NULL) return {0};
  return Extents(extents.begin(), extents.begin() + rank);
}

std::vector<hsize_t> to_hdf5(std::span<const std::size_t> extents) {
  return {extents.begin(), extents.end()};
}

std::size_t product(std::span<const std::size_t> extents) {
  return std::accumulate(extents.begin(), extents.end(), std::size_t{1}, std::multiplies<>());
}

/// Whole rows of at most 1 MiB together; a row above that is cut along the next axis.
Extents default_chunk(std::span<const std::size_t> shape, std::size_t element_bytes) {
  constexpr std::size_t limit = std::size_t{1} << 20;
  Extents chunk(shape.begin(), shape.end());
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    const std::size_t row_bytes = product(shape.subspan(axis + 1)) * element_bytes;
    chunk[axis] = std::clamp(limit / row_bytes, std::size_t{1}, shape[axis]);
    if (row_bytes <= limit) break;
  }
  return chunk;
}

Hdf5Handle text_type(std::size_t bytes, const std::string& file, std::string_view object) {
  Hdf5Handle type = checked(H5Tcopy(H5T_C_S1), Kind::datatype, file, object, "no type for text");
  if (H5Tset_size(type.id(), bytes) < 0 || H5Tset_cset(type.id(), H5T_CSET_UTF8) < 0 ||
      H5Tset_strpad(type.id(), H5T_STR_NULLPAD) < 0)
    fail(file, object, "no type for text");
  return type;
}

/// Properties of every file: format of HDF5 1.10, no locks.
Hdf5Handle access_properties(const std::string& file) {
  Hdf5Handle access = checked(H5Pcreate(H5P_FILE_ACCESS), Kind::property_list, file, "", "no access properties");
  if (H5Pset_libver_bounds(access.id(), H5F_LIBVER_V110, H5F_LIBVER_V110) < 0 ||
      H5Pset_file_locking(access.id(), false, true) < 0)
    fail(file, "", "no access properties");
  return access;
}

/// Makes the groups on the way to a new object.
Hdf5Handle link_properties(const std::string& file) {
  Hdf5Handle link = checked(H5Pcreate(H5P_LINK_CREATE), Kind::property_list, file, "", "no link properties");
  if (H5Pset_create_intermediate_group(link.id(), 1) < 0 || H5Pset_char_encoding(link.id(), H5T_CSET_UTF8) < 0)
    fail(file, "", "no link properties");
  return link;
}

}  // namespace

const char* hdf5_type_name(Hdf5Type type) {
  constexpr std::array<const char*, 10> names = {"int8",   "int16",  "int32",  "int64",   "uint8",
                                                 "uint16", "uint32", "uint64", "float32", "float64"};
  return names[static_cast<std::size_t>(type)];
}

// ---- Hdf5Handle

Hdf5Handle::Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), kind_(other.kind_) {}

Hdf5Handle& Hdf5Handle::operator=(Hdf5Handle&& other) noexcept {
  if (this != &other) {
    close();
    id_ = std::exchange(other.id_, -1);
    kind_ = other.kind_;
  }
  return *this;
}

bool Hdf5Handle::close() noexcept {
  if (id_ < 0) return true;
  const Hdf5Call call;
  const hid_t id = std::exchange(id_, -1);
  switch (kind_) {
    case Kind::file:
      return H5Fclose(id) >= 0;
    case Kind::group:
      return H5Gclose(id) >= 0;
    case Kind::object:
      return H5Oclose(id) >= 0;
    case Kind::dataset:
      return H5Dclose(id) >= 0;
    case Kind::attribute:
      return H5Aclose(id) >= 0;
    case Kind::dataspace:
      return H5Sclose(id) >= 0;
    case Kind::datatype:
      return H5Tclose(id) >= 0;
    case Kind::property_list:
      return H5Pclose(id) >= 0;
  }
  return false;
}

// ---- Hdf5Dataset

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
  const Hdf5Call call;
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
                            std::span<std::byte> values, Hdf5Type type) const {
  const Hdf5Call call;
  const Hdf5Handle file_space = select(offset, count, values.size(), type);
  if (values.empty()) return;
  const Hdf5Handle memory = memory_space(file_space.id(), file_, name_);
  if (H5Dread(handle_.id(), type_ids(type).memory, memory.id(), file_space.id(), H5P_DEFAULT, values.data()) < 0)
    fail(file_, name_, "cannot be read");
}

void Hdf5Dataset::write_slab(std::span<const std::size_t> offset, std::span<const std::size_t> count,
                             std::span<const std::byte> values, Hdf5Type type) {
  const Hdf5Call call;
  const Hdf5Handle file_space = select(offset, count, values.size(), type);
  if (values.empty()) return;
  const Hdf5Handle memory = memory_space(file_space.id(), file_, name_);
  if (H5Dwrite(handle_.id(), type_ids(type).memory, memory.id(), file_space.id(), H5P_DEFAULT, values.data()) < 0)
    fail(file_, name_, "cannot be written");
}

// ---- Hdf5File

Hdf5File Hdf5File::create(const std::filesystem::path& path) {
  const Hdf5Call call;
  const Hdf5Handle access = access_properties(path.string());
  return Hdf5File(path, checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.id()), Kind::file,
                                path.string(), "", "cannot be created"));
}

Hdf5File Hdf5File::open(const std::filesystem::path& path) {
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  if (status.type() == std::filesystem::file_type::not_found) throw DataError("{}: no such file", path.string());
  if (std::filesystem::is_directory(status))
    throw DataError("{}: is a folder, expected an HDF5 file", path.string());
  const Hdf5Call call;
  const Hdf5Handle access = access_properties(path.string());
  return Hdf5File(path, checked(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id()), Kind::file, path.string(), "",
                                "cannot be opened as HDF5"));
}

void Hdf5File::close() {
  const Hdf5Call call;
  if (!handle_.open()) return;
  if (H5Fget_obj_count(handle_.id(), H5F_OBJ_ALL | H5F_OBJ_LOCAL) > 1)
    throw std::logic_error(path_.string() + ": closed while its datasets are still open");
  const bool flushed = H5Fflush(handle_.id(), H5F_SCOPE_LOCAL) >= 0;
  if (!flushed) fail(path_.string(), "", "cannot be written");
  if (!handle_.close()) fail(path_.string(), "", "cannot be closed");
}

bool Hdf5File::exists(std::string_view object) const {
  const Hdf5Call call;
  const std::string name(object);
  // H5Lexists wants every group on the way to exist: ask for each prefix in turn
  for (std::size_t end = name.find_first_not_of('/'); end < name.size();) {
    end = std::min(name.find('/', end), name.size());
    const htri_t there = H5Lexists(handle_.id(), name.substr(0, end).c_str(), H5P_DEFAULT);
    if (there < 0) fail(path_.string(), name, "cannot be looked up");
    if (there == 0) return false;
    end = std::min(name.find_first_not_of('/', end), name.size());
  }
  return true;
}

std::vector<std::string> Hdf5File::members(std::string_view group) const {
  const Hdf5Call call;
  const std::string name(group);
  const Hdf5Handle handle = checked(H5Gopen2(handle_.id(), name.c_str(), H5P_DEFAULT), Kind::group, path_.string(),
                                    name, "cannot be opened as a group");
  std::vector<std::string> names;
  const auto collect = [](hid_t, const char* link, const H5L_info2_t*, void* list) -> herr_t {
    static_cast<std::vector<std::string>*>(list)->emplace_back(link);
    return 0;
  };
  if (H5Literate2(handle.id(), H5_INDEX_NAME, H5_ITER_INC, nullptr, collect, &names) < 0)
    fail(path_.string(), name, "cannot be listed");
  std::sort(names.begin(), names.end());
  return names;
}

void Hdf5File::create_group(std::string_view group) {
  const Hdf5Call call;
  const std::string name(group);
  const Hdf5Handle link = link_properties(path_.string());
  checked(H5Gcreate2(handle_.id(), name.c_str(), link.id(), H5P_DEFAULT, H5P_DEFAULT), Kind::group, path_.string(),
          name, "cannot be created");
}

Hdf5Dataset Hdf5File::dataset(std::string_view name) const {
  const Hdf5Call call;
  const std::string text(name);
  if (!exists(name)) throw DataError("{}:{}: no such dataset", path_.string(), text);
  return Hdf5Dataset(path_.string(), text,
                     checked(H5Dopen2(handle_.id(), text.c_str(), H5P_DEFAULT), Kind::dataset, path_.string(), text,
                             "cannot be opened as a dataset"));
}

Hdf5Dataset Hdf5File::create_dataset(std::string_view name, Hdf5Type type, std::span<const std::size_t> shape,
                                     const Hdf5Storage& storage) {
  const Hdf5Call call;
  const std::string text(name), file = path_.string();
  const std::vector<hsize_t> extents = to_hdf5(shape);
  const Hdf5Handle space =
      shape.empty() ? checked(H5Screate(H5S_SCALAR), Kind::dataspace, file, text, "no shape")
                    : checked(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
                              Kind::dataspace, file, text, "no shape");
  const Hdf5Handle creation = checked(H5Pcreate(H5P_DATASET_CREATE), Kind::property_list, file, text, "no layout");
  if (!shape.empty() && product(shape) > 0) {
    const std::vector<hsize_t> chunk =
        to_hdf5(storage.chunk.empty() ? default_chunk(shape, type_bytes(type)) : storage.chunk);
    if (chunk.size() != shape.size()) throw ShapeError(file + ":" + text + ": its chunk has another rank");
    if (H5Pset_chunk(creation.id(), static_cast<int>(chunk.size()), chunk.data()) < 0 ||
        (storage.fletcher32 && H5Pset_fletcher32(creation.id()) < 0))
      fail(file, text, "no layout");
  }
  const Hdf5Handle link = link_properties(file);
  return Hdf5Dataset(file, text,
                     checked(H5Dcreate2(handle_.id(), text.c_str(), type_ids(type).little, space.id(), link.id(),
                                        creation.id(), H5P_DEFAULT),
                             Kind::dataset, file, text, "cannot be created"));
}

void Hdf5File::require_shape(const Hdf5Dataset& dataset, std::span<const std::size_t> expected) const {
  if (!std::equal(expected.begin(), expected.end(), dataset.shape().begin(), dataset.shape().end()))
    throw DataError("{}:{}: has shape ({}), expected ({})", path_.string(), dataset.name(),
                    fmt::join(dataset.shape(), ","), fmt::join(expected, ","));
}

// ---- attributes

Hdf5Handle Hdf5File::open_object(std::string_view object) const {
  const std::string name(object);
  if (!exists(object)) throw DataError("{}:{}: no such group or dataset", path_.string(), name);
  return checked(H5Oopen(handle_.id(), name.c_str(), H5P_DEFAULT), Kind::object, path_.string(), name,
                 "cannot be opened");
}

bool Hdf5File::has_attribute(std::string_view object, std::string_view name) const {
  const Hdf5Call call;
  const Hdf5Handle owner = open_object(object);
  const htri_t there = H5Aexists(owner.id(), std::string(name).c_str());
  if (there < 0) fail(path_.string(), object, fmt::format("attribute {} cannot be looked up", name));
  return there > 0;
}

Hdf5Handle Hdf5File::open_attribute(std::string_view object, std::string_view name) const {
  if (!has_attribute(object, name)) throw DataError("{}:{}: has no attribute {}", path_.string(), object, name);
  const Hdf5Handle owner = open_object(object);
  Hdf5Handle attribute = checked(H5Aopen(owner.id(), std::string(name).c_str(), H5P_DEFAULT), Kind::attribute,
                                 path_.string(), object, fmt::format("attribute {} cannot be opened", name));
  const Hdf5Handle space =
      checked(H5Aget_space(attribute.id()), Kind::dataspace, path_.string(), object, "attribute without a shape");
  if (H5Sget_simple_extent_npoints(space.id()) != 1)
    throw DataError("{}:{}: attribute {} is a list, expected one value", path_.string(), object, name);
  return attribute;
}

namespace {

/// Creates a scalar attribute and writes its value, given in memory as `memory_type`.
void create_attribute(const Hdf5Handle& owner, const std::string& file, std::string_view object,
                      std::string_view name, hid_t file_type, hid_t memory_type, std::span<const std::byte> value) {
  const std::string what = fmt::format("attribute {} cannot be written", name);
  const Hdf5Handle space = checked(H5Screate(H5S_SCALAR), Kind::dataspace, file, object, what);
  const Hdf5Handle attribute =
      checked(H5Acreate2(owner.id(), std::string(name).c_str(), file_type, space.id(), H5P_DEFAULT, H5P_DEFAULT),
              Kind::attribute, file, object, what);
  if (H5Awrite(attribute.id(), memory_type, value.data()) < 0) fail(file, object, what);
}

}  // namespace

void Hdf5File::write_attribute(std::string_view object, std::string_view name, std::string_view text) {
  const Hdf5Call call;
  std::string padded(text);
  if (padded.empty()) padded.push_back('\0');  // HDF5 knows no type of length 0
  const Hdf5Handle type = text_type(padded.size(), path_.string(), object);
  create_attribute(open_object(object), path_.string(), object, name, type.id(), type.id(),
                   std::as_bytes(std::span(padded)));
}

void Hdf5File::write_number(std::string_view object, std::string_view name, std::span<const std::byte> value,
                            Hdf5Type type) {
  const Hdf5Call call;
  create_attribute(open_object(object), path_.string(), object, name, type_ids(type).little, type_ids(type).memory,
                   value);
}

std::string Hdf5File::text_attribute(std::string_view object, std::string_view name) const {
  const Hdf5Call call;
  const std::string what = fmt::format("attribute {} cannot be read", name);
  const Hdf5Handle attribute = open_attribute(object, name);
  const Hdf5Handle type = checked(H5Aget_type(attribute.id()), Kind::datatype, path_.string(), object, what);
  if (H5Tget_class(type.id()) != H5T_STRING)
    throw DataError("{}:{}: attribute {} holds {}, expected text", path_.string(), object, name,
                    class_name(H5Tget_class(type.id())));
  if (H5Tis_variable_str(type.id()) > 0) {
    char* characters = nullptr;
    if (H5Aread(attribute.id(), type.id(), static_cast<void*>(&characters)) < 0) fail(path_.string(), object, what);
    std::string text = characters == nullptr ? "" : characters;
    H5free_memory(characters);
    return text;
  }
  std::string text(H5Tget_size(type.id()), '\0');
  if (H5Aread(attribute.id(), type.id(), text.data()) < 0) fail(path_.string(), object, what);
  const H5T_str_t padding = H5Tget_strpad(type.id());
  if (padding == H5T_STR_NULLTERM) text.resize(std::min(text.find('\0'), text.size()));
  while (!text.empty() && text.back() == (padding == H5T_STR_SPACEPAD ? ' ' : '\0')) text.pop_back();
  return text;
}

void Hdf5File::read_number(std::string_view object, std::string_view name, std::span<std::byte> value,
                           Hdf5Type type) const {
  const Hdf5Call call;
  const std::string what = fmt::format("attribute {} cannot be read", name);
  const Hdf5Handle attribute = open_attribute(object, name);
  const Hdf5Handle found = checked(H5Aget_type(attribute.id()), Kind::datatype, path_.string(), object, what);
  const std::string place = fmt::format("{} attribute {}", object, name);
  if (const Hdf5Type stored = number_type(found.id(), path_.string(), place); stored != type)
    throw DataError("{}:{}: holds {}, expected {}", path_.string(), place, hdf5_type_name(stored),
                    hdf5_type_name(type));
  if (H5Aread(attribute.id(), type_ids(type).memory, value.data()) < 0) fail(path_.string(), object, what);
}

}  // namespace dekoder
