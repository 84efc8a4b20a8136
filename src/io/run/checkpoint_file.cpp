// SPDX-License-Identifier: Apache-2.0
#include "io/run/checkpoint_file.hpp"

#include <fmt/ranges.h>

#include <algorithm>

namespace dekoder {

namespace {

namespace fs = std::filesystem;
using Extents = std::vector<std::size_t>;

/// Returns the minor version.
int require_format(const Hdf5File& file) {
  const std::string name = file.path().string();
  if (!file.has_attribute("/", "format") || file.text_attribute("/", "format") != checkpoint_format_name)
    throw DataError("{}: is HDF5 but no checkpoint of dekoder", name);
  const int major = file.attribute<std::int32_t>("/", "major"), minor = file.attribute<std::int32_t>("/", "minor");
  if (major > checkpoint_format_major)
    throw NewerFormatError(
        "{}: has checkpoint format {}.{}, this program reads up to {}.x; use the newer program that "
        "wrote it, or start afresh in another run directory",
        name, major, minor, checkpoint_format_major);
  if (major < 1 || minor < 0)  // its digests would not be looked at
    throw DataError("{}: is damaged (checkpoint format {}.{}, which there is not)", name, major, minor);
  return minor;
}

std::vector<TensorRecord> read_records(const Hdf5File& file, const std::vector<std::string>& groups) {
  std::vector<TensorRecord> records;
  for (const std::string& group : groups)
    for (const std::string& name : file.members("/" + group)) {
      TensorRecord record;
      record.path = tensor_path(group, name);
      const Hdf5Dataset dataset = file.dataset(record.path);
      record.type = dataset.type();
      record.shape = dataset.shape();
      record.axes = file.text_attribute(record.path, "axes");
      record.digest = file.attribute<std::uint64_t>(record.path, "digest");
      records.push_back(std::move(record));
    }
  return records;
}

}  // namespace

std::string TensorRecord::heading() const {
  return fmt::format("{}\n{}\n{}\n{}\n", path, hdf5_type_name(type), fmt::join(shape, ","), axes);
}

std::uint64_t TensorRecord::digest_of(std::span<const std::byte> bytes) const {
  Xxh64 whole;
  whole.update(heading());
  whole.update(bytes);
  return whole.digest();
}

std::string digest_fault(const std::string& file, const TensorRecord& record, std::uint64_t computed) {
  return fmt::format("{}:{}: is damaged (digest differs: stored {:016x}, computed {:016x})", file, record.path,
                     record.digest, computed);
}

std::string tensor_path(std::string_view group, std::string_view name) {
  return fmt::format("/{}/{}", group, name);
}

std::string checkpoint_digest_name(int minor) {
  return minor == 0 ? "digest" : fmt::format("digest_{}", minor);
}

std::uint64_t checkpoint_root_digest(const CheckpointInfo& info, int minor, std::vector<TensorRecord> records) {
  Xxh64 digest;
  digest.update(minor == 0 ? fmt::format("{} {}\n", checkpoint_format_name, checkpoint_format_major)
                           : fmt::format("{} {}.{}\n", checkpoint_format_name, checkpoint_format_major, minor));
  for_each_field(info, minor, [&](const char* name, const auto& value) {
    const std::string text = fmt::format("{}", value);
    digest.update(fmt::format("{}:{}:{}\n", name, text.size(), text));
  });
  std::sort(records.begin(), records.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  for (const TensorRecord& record : records)
    digest.update(fmt::format("{}{:016x}\n", record.heading(), record.digest));
  return digest.digest();
}

OpenCheckpoint open_checkpoint(const fs::path& path) {
  OpenCheckpoint checkpoint{Hdf5File::open(path), {}, {}, {}};
  const Hdf5File& file = checkpoint.file;
  const int file_minor = require_format(file);
  checkpoint.groups = file.members("/");
  std::erase(checkpoint.groups, "tokenizer");  // a text that is too long for an attribute
  checkpoint.records = read_records(file, checkpoint.groups);
  for (int minor = 0; minor <= std::min(file_minor, checkpoint_format_minor); ++minor) {
    for_each_field(checkpoint.info, minor, [&](const char* name, auto& value) {
      using Value = std::remove_reference_t<decltype(value)>;
      if constexpr (std::is_same_v<Value, std::string>)
        value = file.text(name);
      else
        value = file.attribute<Value>("/", name);
    });
    const auto covered = minor == 0 ? checkpoint.records : std::vector<TensorRecord>{};
    const auto stored = file.attribute<std::uint64_t>("/", checkpoint_digest_name(minor));
    if (checkpoint_root_digest(checkpoint.info, minor, covered) != stored)
      throw DataError("{}: its fields or its list of tensors are damaged (digest of the root differs)",
                      path.string());
  }
  return checkpoint;
}

std::vector<TensorRecord> matched_records(const OpenCheckpoint& checkpoint, const std::string& group,
                                          const ParameterLayout& layout, std::string_view remedy) {
  const std::string file = checkpoint.name();
  std::vector<TensorRecord> matched;
  for (const ParameterEntry& entry : layout.entries()) {
    if (!in_group(group, entry)) continue;
    const std::string path = tensor_path(group, entry.name);
    const auto found = std::find_if(checkpoint.records.begin(), checkpoint.records.end(),
                                    [&](const TensorRecord& record) { return record.path == path; });
    if (found == checkpoint.records.end())
      throw ConfigError("{}: holds no tensor {}, expected shape ({}): {}", file, path, fmt::join(entry.shape, ","),
                        remedy);
    if (found->shape != Extents(entry.shape.begin(), entry.shape.end()))
      throw ConfigError("{}:{}: has shape ({}), expected ({}): {}", file, path, fmt::join(found->shape, ","),
                        fmt::join(entry.shape, ","), remedy);
    matched.push_back(*found);
  }
  for (const TensorRecord& record : checkpoint.records) {
    if (!record.path.starts_with(fmt::format("/{}/", group))) continue;
    const auto same = [&](const TensorRecord& other) { return other.path == record.path; };
    if (std::none_of(matched.begin(), matched.end(), same))
      throw ConfigError("{}:{}: the model has no such tensor: {}", file, record.path, remedy);
  }
  return matched;
}

void require_groups(const OpenCheckpoint& checkpoint, std::span<const std::string> groups,
                    std::string_view remedy) {
  const auto& found = checkpoint.groups;
  for (const std::string& group : groups)
    if (std::find(found.begin(), found.end(), group) == found.end())
      throw ConfigError("{}: holds no group /{}, which this optimizer keeps: {}", checkpoint.name(), group, remedy);
  for (const std::string& group : found)
    if (std::find(groups.begin(), groups.end(), group) == groups.end())
      throw ConfigError("{}: holds a group /{}, which this optimizer does not keep: {}", checkpoint.name(), group,
                        remedy);
}

// ---- values

TensorReader::TensorReader(const OpenCheckpoint& checkpoint, const TensorRecord& record)
    : file_(checkpoint.name()), record_(record), dataset_(checkpoint.file.dataset(record.path)) {
  if (record.type != Hdf5Type::float32 && record.type != Hdf5Type::float64)
    throw DataError("{}:{}: holds {}, expected float32 or float64", file_, record.path,
                    hdf5_type_name(record.type));
  digest_.update(record.heading());
}

void TensorReader::for_each_block(const BlockVisitor& visit) const {
  constexpr std::size_t limit = std::size_t{1} << 20;
  const Extents &shape = record_.shape, chunk = dataset_.chunk();
  if (dataset_.size() == 0 || shape.empty()) return;  // no tensor of a model is a scalar
  std::size_t axis = 0;                               // the outermost whose slices fit in a block
  std::size_t slice = dataset_.size() / shape[0] * (record_.type == Hdf5Type::float64 ? 8 : 4);
  while (axis + 1 < shape.size() && slice > limit) slice /= shape[++axis];
  std::size_t step = std::max(std::size_t{1}, limit / slice);
  if (!chunk.empty()) step = std::max(std::size_t{1}, step / chunk[axis]) * chunk[axis];  // whole chunks
  Extents offset(shape.size(), 0), count = shape;
  std::fill_n(count.begin(), axis, 1);
  while (true) {
    count[axis] = std::min(step, shape[axis] - offset[axis]);
    visit(offset, count);
    offset[axis] += count[axis];
    for (std::size_t a = axis; offset[a] >= shape[a]; ++offset[--a]) {
      if (a == 0) return;
      offset[a] = 0;
    }
  }
}

template <class T>
std::span<const std::byte> TensorReader::read_into(std::vector<T>& values, const Extents& offset,
                                                   const Extents& count) {
  std::size_t elements = 1;
  for (const std::size_t extent : count) elements *= extent;
  values.resize(elements);
  try {
    dataset_.read(std::span<T>(values), offset, count);
  } catch (const ReadError&) {
    throw;
  } catch (const DataError& error) {
    dataset_.read(std::span<T>(values), offset, count, Hdf5Checksums::ignored);
    if (checksum_fault_.empty()) checksum_fault_ = error.what();
  }
  const auto bytes = std::as_bytes(std::span<const T>(values));
  digest_.update(bytes);
  return bytes;
}

std::span<const std::byte> TensorReader::read(const Extents& offset, const Extents& count) {
  return record_.type == Hdf5Type::float64 ? read_into(doubles_, offset, count) : read_into(floats_, offset, count);
}

std::string TensorReader::fault() const {
  if (digest_.digest() != record_.digest)
    return digest_fault(file_, record_, digest_.digest()) +
           (checksum_fault_.empty() ? "" : ", and so does HDF5's checksum (Fletcher32)");
  return checksum_fault_.empty() ? ""
                                 : fmt::format("{}; the values themselves are intact (digest {:016x})",
                                               checksum_fault_, record_.digest);
}

void TensorReader::require_intact() const {
  if (const std::string what = fault(); !what.empty()) throw DataError("{}", what);
}

void require_intact_tensor(const OpenCheckpoint& checkpoint, const TensorRecord& record) {
  TensorReader reader(checkpoint, record);
  reader.for_each_block([&](const Extents& offset, const Extents& count) { reader.read(offset, count); });
  reader.require_intact();
}

std::vector<std::size_t> index_in_tensor(std::size_t i, std::span<const std::size_t> offset,
                                         std::span<const std::size_t> count) {
  Extents index(count.size());
  for (std::size_t axis = count.size(); axis-- > 0; i /= count[axis]) index[axis] = offset[axis] + i % count[axis];
  return index;
}

}  // namespace dekoder
