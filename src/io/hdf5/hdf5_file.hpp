// SPDX-License-Identifier: Apache-2.0
// HDF5 files through handles that close themselves, spans and clear errors. Every call takes hdf5_mutex(), so that
// a reader thread and a writer thread may use their own files at the same time.
#pragma once

#include <concepts>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/hdf5/hdf5_dataset.hpp"

namespace dekoder {

class PendingFile;

/// One HDF5 file. Objects are named by absolute paths ("/weights/head.weight"; "/" is the root group); missing
/// groups on the way to a new object are made. Errors: DataError naming file, object, what and HDF5's own reason.
class Hdf5File {
 public:
  /// A new file, in place of one that may be there; format bounds V110 (a file that was never closed does not
  /// open).
  static Hdf5File create(const std::filesystem::path& path) { return create(path, path); }
  /// The same under the temporary name of an output; path(), and so every message, is that of its target.
  static Hdf5File create(const PendingFile& output);
  /// Read-only and without file locks, as finished files never change.
  static Hdf5File open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  /// Writes everything out and closes; unlike the destructor it reports what fails. Datasets must be closed before.
  void close();

  /// Whether there is a group or dataset of that name.
  bool exists(std::string_view object) const;
  /// Names of the members of a group, in alphabetical order.
  std::vector<std::string> members(std::string_view group) const;
  void create_group(std::string_view group);
  /// Copies a group, with all that is in it, or a dataset out of another file, under the same name. Compressed
  /// chunks are copied as they are.
  void copy(const Hdf5File& source, std::string_view object);

  Hdf5Dataset dataset(std::string_view name) const;
  /// A new dataset; unwritten elements read as 0.
  Hdf5Dataset create_dataset(std::string_view name, Hdf5Type type, std::span<const std::size_t> shape,
                             const Hdf5Storage& storage = {});
  std::vector<std::size_t> shape(std::string_view name) const { return dataset(name).shape(); }

  /// Creates a dataset of `shape` and writes `values`, which hold its elements in row-major order.
  template <class T>
  void write(std::string_view name, std::span<const T> values, std::span<const std::size_t> shape,
             const Hdf5Storage& storage = {}) {
    Hdf5Dataset dataset = create_dataset(name, hdf5_type_of<T>(), shape, storage);
    dataset.write(values);
    dataset.close();
  }
  /// The same for one axis.
  template <class T>
  void write(std::string_view name, std::span<const T> values) {
    const std::size_t shape[] = {values.size()};
    write(name, values, shape);
  }
  template <class T>
  std::vector<T> read(std::string_view name) const {
    return dataset(name).read<T>();
  }
  /// Reads all elements into `values`; the dataset must have this shape.
  template <class T>
  void read(std::string_view name, std::span<T> values, std::span<const std::size_t> shape) const {
    const Hdf5Dataset source = dataset(name);
    require_shape(source, shape);
    source.read(values);
  }

  /// A new dataset of one axis: UTF-8 text of fixed length, that of the longest of `texts`, padded with NULs.
  void write_texts(std::string_view name, std::span<const std::string> texts, const Hdf5Storage& storage = {});
  /// Reads a dataset of fixed-length text; trailing NULs are not kept.
  std::vector<std::string> read_texts(std::string_view name) const;

  /// A text of any length about the whole file: an attribute of the root group, or where it has more than
  /// attribute_bytes a dataset of that name.
  void write_text(std::string_view name, std::string_view text);
  std::string text(std::string_view name) const;
  static constexpr std::size_t attribute_bytes = 60000;  ///< an object header has room for 64 KiB

  bool has_attribute(std::string_view object, std::string_view name) const;
  /// Text attributes are fixed-length UTF-8 inside the checksummed object header. Trailing NULs are not kept.
  void write_attribute(std::string_view object, std::string_view name, std::string_view text);
  void write_attribute(std::string_view object, std::string_view name, const char* text) {
    write_attribute(object, name, std::string_view(text));
  }
  void write_attribute(std::string_view object, std::string_view name, const std::string& text) {
    write_attribute(object, name, std::string_view(text));
  }
  template <class T>
    requires(std::integral<T> || std::floating_point<T>)
  void write_attribute(std::string_view object, std::string_view name, T value) {
    write_number(object, name, std::as_bytes(std::span<const T, 1>(&value, 1)), hdf5_type_of<T>());
  }
  /// A text attribute, of fixed or variable length.
  std::string text_attribute(std::string_view object, std::string_view name) const;
  /// A scalar attribute whose type is exactly T.
  template <class T>
  T attribute(std::string_view object, std::string_view name) const {
    T value{};
    read_number(object, name, std::as_writable_bytes(std::span<T, 1>(&value, 1)), hdf5_type_of<T>());
    return value;
  }

 private:
  static Hdf5File create(const std::filesystem::path& path, const std::filesystem::path& named);
  Hdf5File(std::filesystem::path path, Hdf5Handle handle) : path_(std::move(path)), handle_(std::move(handle)) {}
  void require_shape(const Hdf5Dataset& dataset, std::span<const std::size_t> expected) const;
  Hdf5Handle open_object(std::string_view object) const;
  Hdf5Handle open_attribute(std::string_view object, std::string_view name) const;
  void write_number(std::string_view object, std::string_view name, std::span<const std::byte> value,
                    Hdf5Type type);
  void read_number(std::string_view object, std::string_view name, std::span<std::byte> value, Hdf5Type type) const;

  std::filesystem::path path_;
  Hdf5Handle handle_;
};

}  // namespace dekoder
