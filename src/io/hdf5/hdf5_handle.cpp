// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5/hdf5_handle.hpp"

#include <array>
#include <utility>

#include "io/hdf5/hdf5_call.hpp"

namespace dekoder {

using hdf5::Kind;

std::recursive_mutex& hdf5_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

const char* hdf5_type_name(Hdf5Type type) {
  constexpr std::array<const char*, hdf5::type_count> names = {
      "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"};
  return names[static_cast<std::size_t>(type)];
}

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
  const hdf5::Call call;
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

}  // namespace dekoder
