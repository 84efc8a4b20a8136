// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/hdf5/hdf5_handle.hpp"

namespace dekoder {

/// How the elements of a new dataset lie in the file.
struct Hdf5Storage {
  std::vector<std::size_t> chunk;  ///< extents of a chunk; empty: whole rows of at most 1 MiB together
  bool fletcher32 = true;          ///< a checksum per chunk, of the bytes as they are stored
  bool shuffle = false;            ///< bytes of equal significance together, which compress better
  int gzip = 0;                    ///< level of compression, 1 to 9; 0: none
  bool extendable = false;         ///< the first axis may grow
};

/// Whether chunks are held against their Fletcher32 as they are read.
enum class Hdf5Checksums { heeded, ignored };

/// One open dataset. Errors: DataError naming file, dataset, what and HDF5's reason.
class Hdf5Dataset {
 public:
  const std::string& name() const { return name_; }
  const std::vector<std::size_t>& shape() const { return shape_; }
  std::size_t size() const;  ///< elements
  Hdf5Type type() const { return type_; }
  /// Extents of a chunk; empty where the dataset is not chunked.
  std::vector<std::size_t> chunk() const;

  /// Reads all elements; `values` has size() elements of exactly this dataset's type.
  template <class T>
  void read(std::span<T> values) const {
    read_slab({}, {}, std::as_writable_bytes(values), hdf5_type_of<T>());
  }
  template <class T>
  std::vector<T> read() const {
    require_type(hdf5_type_of<T>());
    std::vector<T> values(size());
    read(std::span<T>(values));
    return values;
  }
  /// Reads the hyperslab of `count` elements per axis from `offset` on.
  template <class T>
  void read(std::span<T> values, std::span<const std::size_t> offset, std::span<const std::size_t> count,
            Hdf5Checksums checksums = Hdf5Checksums::heeded) const {
    read_slab(offset, count, std::as_writable_bytes(values), hdf5_type_of<T>(), checksums);
  }
  /// Writes all elements.
  template <class T>
  void write(std::span<const T> values) {
    write_slab({}, {}, std::as_bytes(values), hdf5_type_of<T>());
  }
  /// Writes one hyperslab.
  template <class T>
  void write(std::span<const T> values, std::span<const std::size_t> offset, std::span<const std::size_t> count) {
    write_slab(offset, count, std::as_bytes(values), hdf5_type_of<T>());
  }
  /// Gives the first axis of an extendable dataset `rows`; new elements read as 0.
  void extend(std::size_t rows);
  /// Hands written chunks that HDF5 still holds to the system; unlike the destructor it reports what fails.
  void close();

 private:
  friend class Hdf5File;
  Hdf5Dataset(std::string file, std::string name, Hdf5Handle handle);
  void require_type(Hdf5Type expected) const;
  Hdf5Handle select(std::span<const std::size_t> offset, std::span<const std::size_t> count, std::size_t bytes,
                    Hdf5Type type) const;
  void read_slab(std::span<const std::size_t> offset, std::span<const std::size_t> count,
                 std::span<std::byte> values, Hdf5Type type, Hdf5Checksums checksums = Hdf5Checksums::heeded) const;
  void write_slab(std::span<const std::size_t> offset, std::span<const std::size_t> count,
                  std::span<const std::byte> values, Hdf5Type type);

  std::string file_, name_;
  Hdf5Handle handle_;
  std::vector<std::size_t> shape_;
  Hdf5Type type_ = Hdf5Type::int8;
};

}  // namespace dekoder
