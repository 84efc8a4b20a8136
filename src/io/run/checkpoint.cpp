// SPDX-License-Identifier: Apache-2.0
#include "io/run/checkpoint.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <span>
#include <vector>

#include "io/files/durable_file.hpp"
#include "io/files/fault_point.hpp"
#include "io/files/xxh64.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "io/run/step_files.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;
using Extents = std::vector<std::size_t>;

constexpr const char* format_name = "dekoder-checkpoint";
constexpr int format_major = 1, format_minor = 2;

/// What the root digest knows of one tensor.
struct TensorRecord {
  std::string path;  ///< "/parameters/head.weight"
  Hdf5Type type = hdf5_type_of<Real>();
  Extents shape;
  std::string axes;
  std::uint64_t digest = 0;

  std::string heading() const {
    return fmt::format("{}\n{}\n{}\n{}\n", path, hdf5_type_name(type), fmt::join(shape, ","), axes);
  }
};

std::string tensor_path(const std::string& group, const std::string& name) {
  return fmt::format("/{}/{}", group, name);
}

Extents extents_of(const ParameterEntry& entry) {
  return Extents(entry.shape.begin(), entry.shape.end());
}

std::span<const std::byte> bytes_of(const HostBuffer& buffer) {
  return std::as_bytes(std::span<const Real>(buffer.data(), buffer.size()));
}

std::uint64_t tensor_digest(const TensorRecord& record, std::span<const std::byte> bytes) {
  Xxh64 digest;
  digest.update(record.heading());
  digest.update(bytes);
  return digest.digest();
}

/// Chunks of about 1 MiB that share the rows evenly, so that the last one is hardly padded.
Extents chunk_of(const Extents& shape, std::size_t element_bytes) {
  constexpr std::size_t limit = std::size_t{1} << 20;
  const auto share = [](std::size_t elements, std::size_t bytes_each) {
    const std::size_t parts = (elements * bytes_each + limit - 1) / limit;
    return std::max(std::size_t{1}, parts == 0 ? elements : (elements + parts - 1) / parts);
  };
  if (shape.size() == 1) return {share(shape[0], element_bytes)};
  const std::size_t row_bytes = shape[1] * element_bytes;
  if (row_bytes > limit) return {1, share(shape[1], element_bytes)};
  return {share(shape[0], row_bytes), shape[1]};
}

/// Calls visit(name, value) for every field that minor version `minor` brought, in the order of its digest.
template <class Info, class Visitor>
void for_each_field(Info& info, int minor, Visitor visit) {
  switch (minor) {
    case 0:
      visit("step", info.step);
      visit("tokens_seen", info.tokens_seen);
      visit("config_yaml", info.config_yaml);
      visit("tokenizer", info.tokenizer);
      visit("data_hash", info.data_hash);
      visit("validation_loss", info.validation_loss);
      visit("best_validation_loss", info.best_validation_loss);
      visit("best_step", info.best_step);
      visit("sampled_step", info.sampled_step);
      visit("metrics_bytes", info.metrics_bytes);
      visit("samples_bytes", info.samples_bytes);
      visit("run_id", info.run_id);
      visit("writer", info.writer);
      return;
    case 1:
      visit("validation_hash", info.validation_hash);
      visit("best_validation_hash", info.best_validation_hash);
      visit("restarts", info.restarts);
      return;
    case 2:
      visit("skipped_steps", info.skipped_steps);
      return;
    default:
      throw std::logic_error(fmt::format("checkpoint fields of minor version {}", minor));
  }
}

/// Root attribute with the digest of the fields of a minor version.
std::string digest_name(int minor) {
  return minor == 0 ? "digest" : fmt::format("digest_{}", minor);
}

/// XXH64 over "<field>:<bytes of its text>:<text>\n" for each field of the minor version and
/// "<heading>\n<digest>\n" for each tensor in the order of their paths; numbers as their shortest exact text.
std::uint64_t root_digest(const CheckpointInfo& info, int minor, std::vector<TensorRecord> records) {
  Xxh64 digest;
  digest.update(minor == 0 ? fmt::format("{} {}\n", format_name, format_major)
                           : fmt::format("{} {}.{}\n", format_name, format_major, minor));
  for_each_field(info, minor, [&](const char* name, const auto& value) {
    const std::string text = fmt::format("{}", value);
    digest.update(fmt::format("{}:{}:{}\n", name, text.size(), text));
  });
  std::sort(records.begin(), records.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  for (const TensorRecord& record : records)
    digest.update(fmt::format("{}{:016x}\n", record.heading(), record.digest));
  return digest.digest();
}

// ---- reading

/// An open file whose fields and list of tensors are known to be intact.
struct CheckedFile {
  Hdf5File file;
  CheckpointInfo info;
  std::vector<std::string> groups;
  std::vector<TensorRecord> records;  ///< of all groups
};

/// Returns the minor version.
int require_format(const Hdf5File& file) {
  const std::string name = file.path().string();
  if (!file.has_attribute("/", "format") || file.text_attribute("/", "format") != format_name)
    throw DataError("{}: is HDF5 but no checkpoint of dekoder", name);
  const int major = file.attribute<std::int32_t>("/", "major"), minor = file.attribute<std::int32_t>("/", "minor");
  if (major > format_major)
    throw NewerFormatError(
        "{}: has checkpoint format {}.{}, this program reads up to {}.x; use the newer program that "
        "wrote it, or start afresh in another run directory",
        name, major, minor, format_major);
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

CheckedFile open_checked(const fs::path& path) {
  CheckedFile checked{Hdf5File::open(path), {}, {}, {}};
  const Hdf5File& file = checked.file;
  const int file_minor = require_format(file);
  checked.groups = file.members("/");
  checked.records = read_records(file, checked.groups);
  for (int minor = 0; minor <= std::min(file_minor, format_minor); ++minor) {
    for_each_field(checked.info, minor, [&](const char* name, auto& value) {
      using Value = std::remove_reference_t<decltype(value)>;
      if constexpr (std::is_same_v<Value, std::string>)
        value = file.text_attribute("/", name);
      else
        value = file.attribute<Value>("/", name);
    });
    const auto covered = minor == 0 ? checked.records : std::vector<TensorRecord>{};
    if (root_digest(checked.info, minor, covered) != file.attribute<std::uint64_t>("/", digest_name(minor)))
      throw DataError("{}: its fields or its list of tensors are damaged (digest of the root differs)",
                      path.string());
  }
  return checked;
}

[[noreturn]] void fail_digest(const CheckedFile& checked, const TensorRecord& record) {
  throw DataError("{}:{}: is damaged (digest differs)", checked.file.path().string(), record.path);
}

constexpr const char* other_configuration =
    "the configuration has changed since; restore it, or start afresh with another run directory";

/// The record of each parameter in `group`, in the order of the layout; throws ConfigError where they do not match.
std::vector<TensorRecord> matched_records(const CheckedFile& checked, const std::string& group,
                                          const ParameterLayout& layout) {
  const std::string file = checked.file.path().string();
  std::vector<TensorRecord> matched;
  for (const ParameterEntry& entry : layout.entries()) {
    const std::string path = tensor_path(group, entry.name);
    const auto found = std::find_if(checked.records.begin(), checked.records.end(),
                                    [&](const TensorRecord& record) { return record.path == path; });
    if (found == checked.records.end())
      throw ConfigError("{}: holds no tensor {}, expected shape ({}): {}", file, path, fmt::join(entry.shape, ","),
                        other_configuration);
    if (found->shape != extents_of(entry))
      throw ConfigError("{}:{}: has shape ({}), expected ({}): {}", file, path, fmt::join(found->shape, ","),
                        fmt::join(entry.shape, ","), other_configuration);
    if (found->type != hdf5_type_of<Real>())
      throw ConfigError("{}:{}: holds {}, this program computes in {}", file, path, hdf5_type_name(found->type),
                        real_name);
    matched.push_back(*found);
  }
  for (const TensorRecord& record : checked.records) {
    if (!record.path.starts_with(fmt::format("/{}/", group))) continue;
    const auto same = [&](const TensorRecord& other) { return other.path == record.path; };
    if (std::none_of(matched.begin(), matched.end(), same))
      throw ConfigError("{}:{}: the model has no such tensor: {}", file, record.path, other_configuration);
  }
  return matched;
}

void require_groups(const CheckedFile& checked, std::span<const NamedBuffer> buffers) {
  const std::string file = checked.file.path().string();
  for (const NamedBuffer& buffer : buffers)
    if (std::find(checked.groups.begin(), checked.groups.end(), buffer.name) == checked.groups.end())
      throw ConfigError("{}: holds no group /{}, which this optimizer keeps: {}", file, buffer.name,
                        other_configuration);
  for (const std::string& group : checked.groups)
    if (std::none_of(buffers.begin(), buffers.end(), [&](const NamedBuffer& b) { return b.name == group; }))
      throw ConfigError("{}: holds a group /{}, which this optimizer does not keep: {}", file, group,
                        other_configuration);
}

void read_group(const CheckedFile& checked, const NamedBuffer& buffer, const ParameterLayout& layout) {
  const std::vector<TensorRecord> records = matched_records(checked, buffer.name, layout);
  for (std::size_t i = 0; i < records.size(); ++i) {
    const ParameterEntry& entry = layout.entries()[i];
    const MasterTensor1 slice = buffer.put ? MasterTensor1() : ParameterStore::flat_slice(buffer.buffer, entry);
    const HostBuffer host = buffer.put ? HostBuffer("checkpoint.tensor", entry.size())
                                       : HostBuffer(Kokkos::create_mirror_view(Kokkos::HostSpace(), slice));
    checked.file.read(records[i].path, std::span<Real>(host.data(), host.size()), records[i].shape);
    if (tensor_digest(records[i], bytes_of(host)) != records[i].digest) fail_digest(checked, records[i]);
    if (buffer.put)
      buffer.put(entry, host);
    else
      Kokkos::deep_copy(slice, host);
  }
}

template <class T>
void verify_tensor(const CheckedFile& checked, const TensorRecord& record) {
  Xxh64 digest;
  digest.update(record.heading());
  const Hdf5Dataset dataset = checked.file.dataset(record.path);
  const std::size_t rows = record.shape.empty() ? 0 : record.shape[0];
  const std::size_t slab = record.shape.empty() ? 1 : std::max(std::size_t{1}, dataset.chunk().at(0));
  std::vector<T> values;
  for (std::size_t begin = 0; begin < rows; begin += slab) {
    Extents offset(record.shape.size(), 0), count = record.shape;
    offset[0] = begin;
    count[0] = std::min(slab, rows - begin);
    values.resize(dataset.size() / rows * count[0]);
    dataset.read(std::span<T>(values), offset, count);
    digest.update(std::as_bytes(std::span(values)));
  }
  if (digest.digest() != record.digest) fail_digest(checked, record);
}

// ---- writing

std::uint64_t tensor_bytes(const ParameterLayout& layout, std::size_t buffers) {
  std::uint64_t bytes = std::uint64_t{1} << 16;
  for (const ParameterEntry& entry : layout.entries()) {
    const Extents shape = extents_of(entry), chunk = chunk_of(shape, sizeof(Real));
    std::uint64_t stored = sizeof(Real);
    for (std::size_t axis = 0; axis < shape.size(); ++axis)
      stored *= (shape[axis] + chunk[axis] - 1) / chunk[axis] * chunk[axis];
    bytes += buffers * (stored + stored / 1024 + 2048);
  }
  return bytes;
}

HostBuffer elements_of(const NamedBuffer& buffer, const ParameterEntry& entry) {
  if (buffer.get) return buffer.get(entry);
  return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), ParameterStore::flat_slice(buffer.buffer, entry));
}

std::vector<TensorRecord> write_group(Hdf5File& file, const NamedBuffer& buffer, const ParameterLayout& layout) {
  std::vector<TensorRecord> records;
  file.create_group(fmt::format("/{}", buffer.name));
  for (const ParameterEntry& entry : layout.entries()) {
    const HostBuffer host = elements_of(buffer, entry);
    TensorRecord record{tensor_path(buffer.name, entry.name), hdf5_type_of<Real>(), extents_of(entry), entry.axes,
                        0};
    record.digest = tensor_digest(record, bytes_of(host));
    file.write(record.path, std::span<const Real>(host.data(), host.size()), record.shape,
               Hdf5Storage{chunk_of(record.shape, sizeof(Real)), true});
    file.write_attribute(record.path, "axes", record.axes);
    file.write_attribute(record.path, "digest", record.digest);
    records.push_back(std::move(record));
  }
  return records;
}

void write_contents(PendingFile& pending, const CheckpointInfo& info, const ParameterLayout& layout,
                    std::span<const NamedBuffer> buffers) {
  Hdf5File file = Hdf5File::create(pending);
  pending.reserve();
  fault_point("checkpoint:create");
  file.write_attribute("/", "format", format_name);
  file.write_attribute("/", "major", std::int32_t{format_major});
  file.write_attribute("/", "minor", std::int32_t{format_minor});
  std::vector<TensorRecord> records;
  for (const NamedBuffer& buffer : buffers) {
    const std::vector<TensorRecord> written = write_group(file, buffer, layout);
    records.insert(records.end(), written.begin(), written.end());
    if (&buffer == &buffers.front()) fault_point("checkpoint:mid_write");
  }
  for (int minor = 0; minor <= format_minor; ++minor) {
    for_each_field(info, minor,
                   [&](const char* name, const auto& value) { file.write_attribute("/", name, value); });
    file.write_attribute("/", digest_name(minor),
                         root_digest(info, minor, minor == 0 ? records : std::vector<TensorRecord>{}));
  }
  file.close();
}

/// Buffers of a wrong length or of one name are a fault of the program.
void require_buffers(const char* who, const ParameterLayout& layout, std::span<const NamedBuffer> buffers) {
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    if (!buffers[i].get && !buffers[i].put && buffers[i].buffer.size() != layout.flat_size())
      throw ShapeError(fmt::format("{}: {} of {} elements, expected {}", who, buffers[i].name,
                                   buffers[i].buffer.size(), layout.flat_size()));
    for (std::size_t j = 0; j < i; ++j)
      if (buffers[i].name == buffers[j].name)
        throw ShapeError(fmt::format("{}: two buffers of the name {}", who, buffers[i].name));
  }
}

}  // namespace

std::string checkpoint_file_name(long step) {
  return step_file_name(checkpoint_prefix, step);
}

std::uint64_t checkpoint_bytes(const ParameterLayout& layout) {
  return tensor_bytes(layout, buffers_of_state);
}

fs::path write_checkpoint(const fs::path& folder, const CheckpointInfo& info, const ParameterLayout& layout,
                          std::span<const NamedBuffer> buffers, const std::function<void()>& may_take_place) {
  require_buffers("write_checkpoint", layout, buffers);
  const fs::path file = folder / checkpoint_file_name(info.step);
  const auto fail = [&](const std::exception& error) {
    throw SaveError("the state of step {} is not saved; earlier checkpoints are untouched: {}", info.step,
                    error.what());
  };
  try {
    const std::uint64_t texts = info.config_yaml.size() + info.tokenizer.size() + info.restarts.size();
    PendingFile pending(file, "checkpoint", tensor_bytes(layout, buffers.size()) + texts);
    write_contents(pending, info, layout, buffers);
    pending.commit([&](const fs::path& written) {
      verify_checkpoint(written);
      if (may_take_place) may_take_place();
    });
  } catch (const DataError& error) {
    fail(error);
  } catch (const fs::filesystem_error& error) {
    fail(error);
  }
  return file;
}

CheckpointInfo read_checkpoint_info(const fs::path& file) {
  return open_checked(file).info;
}

CheckpointInfo read_checkpoint(const fs::path& file, const ParameterLayout& layout,
                               std::span<const NamedBuffer> buffers) {
  require_buffers("read_checkpoint", layout, buffers);
  const CheckedFile checked = open_checked(file);
  require_groups(checked, buffers);
  for (const NamedBuffer& buffer : buffers) read_group(checked, buffer, layout);
  return checked.info;
}

CheckpointInfo read_checkpoint_parameters(const fs::path& file, const ParameterStore& store) {
  const CheckedFile checked = open_checked(file);
  read_group(checked, {parameter_group, store.values()}, store.layout());
  return checked.info;
}

void verify_checkpoint(const fs::path& file) {
  const CheckedFile checked = open_checked(file);
  for (const TensorRecord& record : checked.records) {
    if (record.type == Hdf5Type::float32)
      verify_tensor<float>(checked, record);
    else if (record.type == Hdf5Type::float64)
      verify_tensor<double>(checked, record);
    else
      throw DataError("{}:{}: holds {}, expected float32 or float64", file.string(), record.path,
                      hdf5_type_name(record.type));
  }
}

}  // namespace dekoder
