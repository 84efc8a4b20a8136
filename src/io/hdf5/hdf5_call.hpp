// SPDX-License-Identifier: Apache-2.0
// What every call into the HDF5 library needs; for the sources of hdf5_*, which alone include <hdf5.h>.
#pragma once

#include <hdf5.h>

#include <cstddef>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/hdf5/hdf5_handle.hpp"

namespace dekoder::hdf5 {

using Kind = Hdf5Handle::Kind;
using Extents = std::vector<std::size_t>;

/// Holds the lock and keeps HDF5 from printing (a setting of each thread).
class Call {
 public:
  Call() : lock_(hdf5_mutex()) { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

 private:
  std::lock_guard<std::recursive_mutex> lock_;
};

/// HDF5's own account of the call that failed last: its innermost entry, where the cause is.
std::string failure_reason();

/// Throws DataError with failure_reason(), or ReadError where the cause is the system's: a read(2) or open(2) that
/// failed, or no memory.
[[noreturn]] void fail(const std::string& file, std::string_view object, std::string_view what);

/// A handle of what an HDF5 call returned; throws as fail() where the call failed.
Hdf5Handle checked(hid_t id, Kind kind, const std::string& file, std::string_view object, std::string_view what);

inline constexpr std::size_t type_count = 11;  ///< of Hdf5Type

/// Identifiers that HDF5 keeps: never close them.
struct TypeIds {
  hid_t little, big, memory;
};
TypeIds type_ids(Hdf5Type type);
std::size_t type_bytes(Hdf5Type type);

/// What a message calls elements that are no plain numbers.
const char* class_name(H5T_class_t type_class);
/// The type of a dataset's or attribute's elements; throws DataError where they are no plain numbers.
Hdf5Type number_type(hid_t type_id, const std::string& file, std::string_view object);
/// UTF-8 text of `bytes` bytes, padded with NULs.
Hdf5Handle text_type(std::size_t bytes, const std::string& file, std::string_view object);
/// One text out of the elements of a fixed-length type: without its padding.
std::string unpadded_text(hid_t type_id, std::span<const char> element);

Extents space_extents(hid_t space, const std::string& file, std::string_view object);
std::vector<hsize_t> to_hdf5(std::span<const std::size_t> extents);
std::size_t product(std::span<const std::size_t> extents);

}  // namespace dekoder::hdf5
