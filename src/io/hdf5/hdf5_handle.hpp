// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstdint>
#include <mutex>

#include "io/hdf5/half.hpp"

namespace dekoder {

/// The one lock around every call into the HDF5 library. Recursive: hold it across several calls of this file to
/// make them one unit.
std::recursive_mutex& hdf5_mutex();

/// Element types of datasets and numeric attributes; little-endian on disk.
enum class Hdf5Type { int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, float32, float64 };
/// "float32".
const char* hdf5_type_name(Hdf5Type type);

/// The element type of T; Half is float16. bool, character types and long double have none.
template <class T>
consteval Hdf5Type hdf5_type_of() {
  if constexpr (std::same_as<T, Half>) {
    return Hdf5Type::float16;
  } else {
    static_assert(std::integral<T> || std::same_as<T, float> || std::same_as<T, double>);
    static_assert(!std::same_as<T, bool> && !std::same_as<T, char> && !std::same_as<T, wchar_t>);
    if constexpr (std::floating_point<T>) return sizeof(T) == 4 ? Hdf5Type::float32 : Hdf5Type::float64;
    constexpr int width = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
    return static_cast<Hdf5Type>((std::signed_integral<T> ? 0 : 4) + width);
  }
}

/// Owns one HDF5 identifier; move-only.
class Hdf5Handle {
 public:
  enum class Kind { file, group, object, dataset, attribute, dataspace, datatype, property_list };

  Hdf5Handle() = default;
  /// Takes over `id`, an identifier of HDF5 (hid_t) that is not negative.
  Hdf5Handle(std::int64_t id, Kind kind) : id_(id), kind_(kind) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept;
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept;
  ~Hdf5Handle() { close(); }

  std::int64_t id() const { return id_; }
  bool open() const { return id_ >= 0; }
  /// False where HDF5 could not close it (a flush that failed, say). Closed handles stay closed: true.
  bool close() noexcept;

 private:
  std::int64_t id_ = -1;
  Kind kind_ = Kind::file;
};

}  // namespace dekoder
