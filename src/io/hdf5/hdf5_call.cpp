// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5/hdf5_call.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <functional>
#include <numeric>
#include <stdexcept>

#include "base/error.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/input_file.hpp"

namespace dekoder::hdf5 {

static_assert(std::is_same_v<hid_t, std::int64_t>);

namespace {

/// The innermost entry on HDF5's stack of errors.
std::string innermost_error() {
  std::string text;
  const auto take_innermost = [](unsigned depth, const H5E_error2_t* entry, void* found) -> herr_t {
    if (depth == 0 && entry->desc != nullptr) *static_cast<std::string*>(found) = entry->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, &text);
  return text;
}

/// The errno that HDF5's file driver gives ("file read failed: time = ..., errno = 5, error message = ..."); 0:
/// none.
int driver_error(const std::string& text) {
  constexpr std::string_view mark = "errno = ";
  const std::size_t at = text.find(mark);
  int error = 0;
  if (at != std::string::npos) std::from_chars(text.data() + at + mark.size(), text.data() + text.size(), error);
  return error;
}

/// That of a failure that says nothing about the file's contents: a read or an open that failed, or no memory. 0:
/// another one.
int read_error(const std::string& text) {
  if (text.find("memory allocation failed") != std::string::npos) return ENOMEM;
  return text.starts_with("file read failed") || text.starts_with("unable to open file") ? driver_error(text) : 0;
}

/// binary16, which HDF5 has a name for only since 1.14.4. Made once; the library closes it at its end.
TypeIds half_ids() {
  static const TypeIds ids = [] {
    const auto of = [](hid_t single) {
      const hid_t type = H5Tcopy(single);
      // sign at bit 15, 5 bits of exponent from bit 10 on, 10 bits of fraction from bit 0 on
      if (type < 0 || H5Tset_fields(type, 15, 10, 5, 0, 10) < 0 || H5Tset_size(type, 2) < 0 ||
          H5Tset_ebias(type, 15) < 0)
        throw std::logic_error("HDF5 makes no binary16");
      return type;
    };
    return TypeIds{of(H5T_IEEE_F32LE), of(H5T_IEEE_F32BE), of(H5T_NATIVE_FLOAT)};
  }();
  return ids;
}

}  // namespace

std::string failure_reason() {
  const std::string reason = innermost_error();
  if (reason.find("already open for write") != std::string::npos)
    return "its writer never closed it (killed, or still at work)";
  if (reason.find("filter returned failure during read") != std::string::npos)
    return "damaged: a checksum (Fletcher32) of its data does not match";
  // "file write failed: time = ..., errno = 28, error message = 'No space left on device', buf = ..."
  constexpr std::string_view mark = "error message = '";
  if (const std::size_t begin = reason.find(mark); begin != std::string::npos) {
    const std::size_t from = begin + mark.size();
    const std::string said =
        reason.substr(0, reason.find(':')) + ": " + reason.substr(from, reason.find('\'', from) - from);
    return reason.starts_with("file write failed") ? fmt::format("{}; {}", said, write_remedy(driver_error(reason)))
                                                   : said;
  }
  return reason.empty() ? "HDF5 gives no reason" : reason;
}

void fail(const std::string& file, std::string_view object, std::string_view what) {
  const std::string place = fmt::format("{}{}{}", file, object.empty() ? "" : ":", object);
  if (const int error = read_error(innermost_error()); error != 0) throw_read_error(place, error, what);
  throw DataError("{}: {}: {}", place, what, failure_reason());
}

Hdf5Handle checked(hid_t id, Kind kind, const std::string& file, std::string_view object, std::string_view what) {
  if (id < 0) fail(file, object, what);
  return Hdf5Handle(id, kind);
}

TypeIds type_ids(Hdf5Type type) {
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
    case Hdf5Type::float16:
      return half_ids();
    case Hdf5Type::float32:
      return {H5T_IEEE_F32LE, H5T_IEEE_F32BE, H5T_NATIVE_FLOAT};
    case Hdf5Type::float64:
      return {H5T_IEEE_F64LE, H5T_IEEE_F64BE, H5T_NATIVE_DOUBLE};
  }
  throw std::logic_error("unknown Hdf5Type");
}

std::size_t type_bytes(Hdf5Type type) {
  constexpr std::array<std::size_t, type_count> bytes = {1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8};
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

Hdf5Type number_type(hid_t type_id, const std::string& file, std::string_view object) {
  for (int index = 0; index < static_cast<int>(type_count); ++index) {
    const TypeIds ids = type_ids(static_cast<Hdf5Type>(index));
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

Hdf5Handle text_type(std::size_t bytes, const std::string& file, std::string_view object) {
  Hdf5Handle type = checked(H5Tcopy(H5T_C_S1), Kind::datatype, file, object, "no type for text");
  if (H5Tset_size(type.id(), bytes) < 0 || H5Tset_cset(type.id(), H5T_CSET_UTF8) < 0 ||
      H5Tset_strpad(type.id(), H5T_STR_NULLPAD) < 0)
    fail(file, object, "no type for text");
  return type;
}

std::string unpadded_text(hid_t type_id, std::span<const char> element) {
  std::string text(element.begin(), element.end());
  const H5T_str_t padding = H5Tget_strpad(type_id);
  if (padding == H5T_STR_NULLTERM) text.resize(std::min(text.find('\0'), text.size()));
  while (!text.empty() && text.back() == (padding == H5T_STR_SPACEPAD ? ' ' : '\0')) text.pop_back();
  return text;
}

}  // namespace dekoder::hdf5
