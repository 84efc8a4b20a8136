// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5/hdf5_file.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/input_file.hpp"
#include "io/hdf5/hdf5_call.hpp"

namespace dekoder {

using namespace hdf5;

namespace {

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

/// Properties of every file: format of HDF5 1.10, no locks.
Hdf5Handle access_properties(const std::string& file) {
  Hdf5Handle access = checked(H5Pcreate(H5P_FILE_ACCESS), Kind::property_list, file, "", "no access properties");
  if (H5Pset_libver_bounds(access.id(), H5F_LIBVER_V110, H5F_LIBVER_V110) < 0 ||
      H5Pset_file_locking(access.id(), false, true) < 0)
    fail(file, "", "no access properties");
  return access;
}

/// Properties of a new object of `what` (a file: its root group): no times, so that equal contents are equal bytes.
Hdf5Handle timeless(hid_t what, const std::string& file, const std::string& name) {
  Hdf5Handle creation = checked(H5Pcreate(what), Kind::property_list, file, name, "no layout");
  if (H5Pset_obj_track_times(creation.id(), false) < 0) fail(file, name, "no layout");
  return creation;
}

/// Makes the groups on the way to a new object.
Hdf5Handle link_properties(const std::string& file) {
  Hdf5Handle link = checked(H5Pcreate(H5P_LINK_CREATE), Kind::property_list, file, "", "no link properties");
  if (H5Pset_create_intermediate_group(link.id(), 1) < 0 || H5Pset_char_encoding(link.id(), H5T_CSET_UTF8) < 0)
    fail(file, "", "no link properties");
  return link;
}

}  // namespace

Hdf5File Hdf5File::create(const std::filesystem::path& path, const std::filesystem::path& named) {
  const Call call;
  const Hdf5Handle access = access_properties(named.string());
  const Hdf5Handle creation = timeless(H5P_FILE_CREATE, named.string(), "/");
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.id(), access.id());
  if (file < 0) throw DataError("{}: cannot be created: {}", named.string(), failure_reason());
  return Hdf5File(named, Hdf5Handle(file, Kind::file));
}

Hdf5File Hdf5File::create(const PendingFile& output) {
  return create(output.temporary(), output.target());
}

Hdf5File Hdf5File::open(const std::filesystem::path& path) {
  const Call call;
  require_regular_file(path, "file in HDF5 format");
  const Hdf5Handle access = access_properties(path.string());
  return Hdf5File(path, checked(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id()), Kind::file, path.string(), "",
                                "cannot be opened as HDF5"));
}

void Hdf5File::close() {
  const Call call;
  if (!handle_.open()) return;
  if (H5Fget_obj_count(handle_.id(), H5F_OBJ_ALL | H5F_OBJ_LOCAL) > 1)
    throw std::logic_error(path_.string() + ": closed while its datasets are still open");
  const bool flushed = H5Fflush(handle_.id(), H5F_SCOPE_LOCAL) >= 0;
  if (!flushed) fail(path_.string(), "", "cannot be written");
  if (!handle_.close()) fail(path_.string(), "", "cannot be closed");
}

bool Hdf5File::exists(std::string_view object) const {
  const Call call;
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
  const Call call;
  const std::string name(group);
  const Hdf5Handle handle = checked(H5Gopen2(handle_.id(), name.c_str(), H5P_DEFAULT), Kind::group, path_.string(),
                                    name, "cannot be opened as a group");
  std::vector<std::string> names;
  const auto collect = [](hid_t, const char* link, const H5L_info2_t*, void* list) -> herr_t {
    static_cast<std::vector<std::string>*>(list)->emplace_back(link);
    return 0;
  };
  // In no order of its own: for one, HDF5 1.14 makes a table that it frees half built where the file is damaged.
  if (H5Literate2(handle.id(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, collect, &names) < 0)
    fail(path_.string(), name, "cannot be listed");
  std::sort(names.begin(), names.end());
  return names;
}

void Hdf5File::create_group(std::string_view group) {
  const Call call;
  const std::string name(group);
  const Hdf5Handle link = link_properties(path_.string());
  const Hdf5Handle creation = timeless(H5P_GROUP_CREATE, path_.string(), name);
  checked(H5Gcreate2(handle_.id(), name.c_str(), link.id(), creation.id(), H5P_DEFAULT), Kind::group,
          path_.string(), name, "cannot be created");
}

Hdf5Dataset Hdf5File::dataset(std::string_view name) const {
  const Call call;
  const std::string text(name);
  if (!exists(name)) throw DataError("{}:{}: no such dataset", path_.string(), text);
  return Hdf5Dataset(path_.string(), text,
                     checked(H5Dopen2(handle_.id(), text.c_str(), H5P_DEFAULT), Kind::dataset, path_.string(), text,
                             "cannot be opened as a dataset"));
}

void Hdf5File::copy(const Hdf5File& source, std::string_view object) {
  const Call call;
  const std::string name(object);
  const Hdf5Handle link = link_properties(path_.string());
  if (H5Ocopy(source.handle_.id(), name.c_str(), handle_.id(), name.c_str(), H5P_DEFAULT, link.id()) < 0)
    fail(path_.string(), object, fmt::format("cannot be copied from {}", source.path_.string()));
}

namespace {

/// Chunks and filters of a new dataset. The checksum comes last: it is of the compressed bytes.
Hdf5Handle creation_properties(std::span<const std::size_t> shape, std::size_t element_bytes,
                               const Hdf5Storage& storage, const std::string& file, const std::string& name) {
  Hdf5Handle creation = timeless(H5P_DATASET_CREATE, file, name);
  if (shape.empty() || (product(shape) == 0 && !storage.extendable)) return creation;
  const std::vector<hsize_t> chunk =
      to_hdf5(storage.chunk.empty() ? default_chunk(shape, element_bytes) : storage.chunk);
  if (chunk.size() != shape.size()) throw ShapeError(file + ":" + name + ": its chunk has another rank");
  if (H5Pset_chunk(creation.id(), static_cast<int>(chunk.size()), chunk.data()) < 0 ||
      (storage.shuffle && H5Pset_shuffle(creation.id()) < 0) ||
      (storage.gzip > 0 && H5Pset_deflate(creation.id(), static_cast<unsigned>(storage.gzip)) < 0) ||
      (storage.fletcher32 && H5Pset_fletcher32(creation.id()) < 0))
    fail(file, name, "no layout");
  return creation;
}

Hdf5Handle new_dataset(const Hdf5Handle& owner, const std::string& file, const std::string& name, hid_t type,
                       std::span<const std::size_t> shape, const Hdf5Storage& storage) {
  const std::vector<hsize_t> extents = to_hdf5(shape);
  std::vector<hsize_t> most = extents;
  if (storage.extendable) most.at(0) = H5S_UNLIMITED;
  const Hdf5Handle space =
      shape.empty() ? checked(H5Screate(H5S_SCALAR), Kind::dataspace, file, name, "no shape")
                    : checked(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), most.data()),
                              Kind::dataspace, file, name, "no shape");
  const Hdf5Handle creation = creation_properties(shape, H5Tget_size(type), storage, file, name);
  const Hdf5Handle link = link_properties(file);
  return checked(H5Dcreate2(owner.id(), name.c_str(), type, space.id(), link.id(), creation.id(), H5P_DEFAULT),
                 Kind::dataset, file, name, "cannot be created");
}

}  // namespace

Hdf5Dataset Hdf5File::create_dataset(std::string_view name, Hdf5Type type, std::span<const std::size_t> shape,
                                     const Hdf5Storage& storage) {
  const Call call;
  const std::string text(name), file = path_.string();
  return Hdf5Dataset(file, text, new_dataset(handle_, file, text, type_ids(type).little, shape, storage));
}

void Hdf5File::write_texts(std::string_view name, std::span<const std::string> texts, const Hdf5Storage& storage) {
  const Call call;
  const std::string text(name), file = path_.string();
  std::size_t bytes = 1;  // HDF5 knows no type of length 0
  for (const std::string& each : texts) bytes = std::max(bytes, each.size());
  std::string padded(texts.size() * bytes, '\0');
  for (std::size_t i = 0; i < texts.size(); ++i) padded.replace(i * bytes, texts[i].size(), texts[i]);
  const Hdf5Handle type = text_type(bytes, file, name);
  const std::size_t shape[] = {texts.size()};
  Hdf5Handle dataset = new_dataset(handle_, file, text, type.id(), shape, storage);
  if (!texts.empty() && H5Dwrite(dataset.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, padded.data()) < 0)
    fail(file, name, "cannot be written");
  if (!dataset.close()) fail(file, name, "cannot be written");
}

std::vector<std::string> Hdf5File::read_texts(std::string_view name) const {
  const Call call;
  const std::string text(name), file = path_.string();
  if (!exists(name)) throw DataError("{}:{}: no such dataset", file, name);
  const Hdf5Handle dataset = checked(H5Dopen2(handle_.id(), text.c_str(), H5P_DEFAULT), Kind::dataset, file, name,
                                     "cannot be opened as a dataset");
  const Hdf5Handle type = checked(H5Dget_type(dataset.id()), Kind::datatype, file, name, "no element type");
  if (H5Tget_class(type.id()) != H5T_STRING || H5Tis_variable_str(type.id()) > 0)
    throw DataError(
        "{}:{}: holds {}, expected text of fixed length", file, name,
        H5Tget_class(type.id()) == H5T_STRING ? "text of variable length" : class_name(H5Tget_class(type.id())));
  const Hdf5Handle space = checked(H5Dget_space(dataset.id()), Kind::dataspace, file, name, "no shape");
  const std::size_t bytes = H5Tget_size(type.id());
  std::vector<char> padded(product(space_extents(space.id(), file, name)) * bytes);
  if (!padded.empty() && H5Dread(dataset.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, padded.data()) < 0)
    fail(file, name, "cannot be read");
  std::vector<std::string> texts;
  for (std::size_t begin = 0; begin < padded.size(); begin += bytes)
    texts.push_back(unpadded_text(type.id(), std::span(padded).subspan(begin, bytes)));
  return texts;
}

void Hdf5File::write_text(std::string_view name, std::string_view text) {
  if (text.size() <= attribute_bytes) return write_attribute("/", name, text);
  const std::string whole(text);
  write_texts(name, std::span(&whole, 1));
}

std::string Hdf5File::text(std::string_view name) const {
  if (!exists(name)) return text_attribute("/", name);
  std::vector<std::string> texts = read_texts(name);
  if (texts.size() != 1) throw DataError("{}:{}: has {} texts, expected one", path_.string(), name, texts.size());
  return std::move(texts.front());
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
  const Call call;
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
  const Call call;
  std::string padded(text);
  if (padded.empty()) padded.push_back('\0');  // HDF5 knows no type of length 0
  const Hdf5Handle type = text_type(padded.size(), path_.string(), object);
  create_attribute(open_object(object), path_.string(), object, name, type.id(), type.id(),
                   std::as_bytes(std::span(padded)));
}

void Hdf5File::write_number(std::string_view object, std::string_view name, std::span<const std::byte> value,
                            Hdf5Type type) {
  const Call call;
  create_attribute(open_object(object), path_.string(), object, name, type_ids(type).little, type_ids(type).memory,
                   value);
}

std::string Hdf5File::text_attribute(std::string_view object, std::string_view name) const {
  const Call call;
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
  std::vector<char> text(H5Tget_size(type.id()));
  if (H5Aread(attribute.id(), type.id(), text.data()) < 0) fail(path_.string(), object, what);
  return unpadded_text(type.id(), text);
}

void Hdf5File::read_number(std::string_view object, std::string_view name, std::span<std::byte> value,
                           Hdf5Type type) const {
  const Call call;
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
