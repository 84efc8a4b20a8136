// SPDX-License-Identifier: Apache-2.0
// HDF5 files through handles that close themselves, spans and clear errors. Every call takes hdf5_mutex(), so that
// a reader thread and a writer thread may use their own files at the same time.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dekoder {

/// The one lock around every call into the HDF5 library. Recursive: hold it across several calls of this file to
/// make them one unit.
std::recursive_mutex& hdf5_mutex();

/// Element types of datasets and numeric attributes; little-endian on disk.
enum class Hdf5Type { int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64 };
/// "float32".
const char* hdf5_type_name(Hdf5Type type);

/// The element type of T. bool, character types and long double have none.
template <class T>
consteval Hdf5Type hdf5_type_of() {
  static_assert(std::integral<T> || std::same_as<T, float> || std::same_as<T, double>);
  static_assert(!std::same_as<T, bool> && !std::same_as<T, char> && !std::same_as<T, wchar_t>);
  if constexpr (std::floating_point<T>) return sizeof(T) == 4 ? Hdf5Type::float32 : Hdf5Type::float64;
  constexpr int width = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
  return static_cast<Hdf5Type>((std::signed_integral<T> ? 0 : 4) + width);
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

/// How the elements of a new dataset lie in the file.
struct Hdf5Storage {
  std::vector<std::size_t> chunk;  ///< extents of a chunk; empty: whole rows of at most 1 MiB together
  bool fletcher32 = true;          ///< a checksum per chunk
};

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
  void read(std::span<T> values, std::span<const std::size_t> offset, std::span<const std::size_t> count) const {
    read_slab(offset, count, std::as_writable_bytes(values), hdf5_type_of<T>());
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

 private:
  friend class Hdf5File;
  Hdf5Dataset(std::string file, std::string name, Hdf5Handle handle);
  void require_type(Hdf5Type expected) const;
  Hdf5Handle select(std::span<const std::size_t> offset, std::span<const std::size_t> count, std::size_t bytes,
                    Hdf5Type type) const;
  void read_slab(std::span<const std::size_t> offset, std::span<const std::size_t> count,
                 std::span<std::byte> values, Hdf5Type type) const;
  void write_slab(std::span<const std::size_t> offset, std::span<const std::size_t> count,
                  std::span<const std::byte> values, Hdf5Type type);

  std::string file_, name_;
  Hdf5Handle handle_;
  std::vector<std::size_t> shape_;
  Hdf5Type type_ = Hdf5Type::int8;
};

/// One HDF5 file. Objects are named by absolute paths ("/weights/head.weight"; "/" is the root group); missing
/// groups on the way to a new object are made. Errors: DataError naming file, object, what and HDF5's own reason.
class Hdf5File {
 public:
  /// A new file, in place of one that may be there; format bounds V110 (a file that was never closed does not
  /// open).
  static Hdf5File create(const std::filesystem::path& path);
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

  Hdf5Dataset dataset(std::string_view name) const;
  /// A new dataset; unwritten elements read as 0.
  Hdf5Dataset create_dataset(std::string_view name, Hdf5Type type, std::span<const std::size_t> shape,
                             const Hdf5Storage& storage = {});
  std::vector<std::size_t> shape(std::string_view name) const { return dataset(name).shape(); }

  /// Creates a dataset of `shape` and writes `values`, which hold its elements in row-major order.
  template <class T>
  void write(std::string_view name, std::span<const T> values, std::span<const std::size_t> shape,
             const Hdf5Storage& storage = {}) {
    create_dataset(name, hdf5_type_of<T>(), shape, storage).write(values);
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
