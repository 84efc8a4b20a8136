// SPDX-License-Identifier: Apache-2.0
#include "io/run/checkpoint.hpp"

#include <algorithm>
#include <span>
#include <vector>

#include "io/files/durable_file.hpp"
#include "io/files/fault_point.hpp"
#include "io/run/checkpoint_file.hpp"
#include "io/run/step_files.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;
using Extents = std::vector<std::size_t>;

Extents extents_of(const ParameterEntry& entry) {
  return Extents(entry.shape.begin(), entry.shape.end());
}

std::span<const std::byte> bytes_of(const HostBuffer& buffer) {
  return std::as_bytes(std::span<const Real>(buffer.data(), buffer.size()));
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

// ---- reading

constexpr const char* other_configuration =
    "the configuration has changed since; restore it, or start afresh with another run directory";

void read_group(const OpenCheckpoint& checkpoint, const NamedBuffer& buffer, const ParameterLayout& layout) {
  const std::vector<TensorRecord> records = matched_records(checkpoint, buffer.name, layout, other_configuration);
  for (const TensorRecord& record : records)
    if (record.type != hdf5_type_of<Real>())
      throw ConfigError("{}:{}: holds {}, this program computes in {}", checkpoint.name(), record.path,
                        hdf5_type_name(record.type), precision_name);
  auto next = records.begin();
  for (const ParameterEntry& entry : layout.entries()) {
    if (!in_group(buffer.name, entry)) continue;
    const TensorRecord& read = *next++;
    const MasterTensor1 slice = buffer.put ? MasterTensor1() : ParameterStore::flat_slice(buffer.buffer, entry);
    const HostBuffer host = buffer.put ? HostBuffer("checkpoint.tensor", entry.size())
                                       : HostBuffer(Kokkos::create_mirror_view(Kokkos::HostSpace(), slice));
    checkpoint.file.read(read.path, std::span<Real>(host.data(), host.size()), read.shape);
    if (const std::uint64_t digest = read.digest_of(bytes_of(host)); digest != read.digest)
      throw DataError("{}", digest_fault(checkpoint.name(), read, digest));
    if (buffer.put)
      buffer.put(entry, host);
    else
      Kokkos::deep_copy(slice, host);
  }
}

// ---- writing

std::uint64_t tensor_bytes(const ParameterLayout& layout, const std::vector<std::string>& groups) {
  std::uint64_t bytes = std::uint64_t{1} << 16;
  for (const ParameterEntry& entry : layout.entries()) {
    const Extents shape = extents_of(entry), chunk = chunk_of(shape, sizeof(Real));
    std::uint64_t stored = sizeof(Real);
    for (std::size_t axis = 0; axis < shape.size(); ++axis)
      stored *= (shape[axis] + chunk[axis] - 1) / chunk[axis] * chunk[axis];
    const auto copies =
        std::count_if(groups.begin(), groups.end(), [&](std::string_view group) { return in_group(group, entry); });
    bytes += std::uint64_t(copies) * (stored + stored / 1024 + 2048);
  }
  return bytes;
}

HostBuffer elements_of(const NamedBuffer& buffer, const ParameterEntry& entry) {
  if (buffer.get) return buffer.get(entry);
  return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), ParameterStore::flat_slice(buffer.buffer, entry));
}

std::vector<TensorRecord> write_group(Hdf5File& file, const NamedBuffer& buffer, const ParameterLayout& layout) {
  std::vector<TensorRecord> records;
  if (!is_kept(buffer.name, layout)) return records;
  file.create_group(fmt::format("/{}", buffer.name));
  for (const ParameterEntry& entry : layout.entries()) {
    if (!in_group(buffer.name, entry)) continue;
    const HostBuffer host = elements_of(buffer, entry);
    TensorRecord record{tensor_path(buffer.name, entry.name), hdf5_type_of<Real>(), extents_of(entry), entry.axes,
                        0};
    record.digest = record.digest_of(bytes_of(host));
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
  file.write_attribute("/", "format", checkpoint_format_name);
  file.write_attribute("/", "major", std::int32_t{checkpoint_format_major});
  file.write_attribute("/", "minor", std::int32_t{checkpoint_format_minor});
  std::vector<TensorRecord> records;
  for (const NamedBuffer& buffer : buffers) {
    const std::vector<TensorRecord> written = write_group(file, buffer, layout);
    records.insert(records.end(), written.begin(), written.end());
    if (&buffer == &buffers.front()) fault_point("checkpoint:mid_write");
  }
  for (int minor = 0; minor <= checkpoint_format_minor; ++minor) {
    for_each_field(info, minor, [&](const char* name, const auto& value) {
      if (name == std::string_view("tokenizer"))
        file.write_text(name, info.tokenizer);
      else
        file.write_attribute("/", name, value);
    });
    file.write_attribute("/", checkpoint_digest_name(minor),
                         checkpoint_root_digest(info, minor, minor == 0 ? records : std::vector<TensorRecord>{}));
  }
  file.close();
}

/// Of the buffers that hold anything.
std::vector<std::string> names_of(std::span<const NamedBuffer> buffers, const ParameterLayout& layout) {
  std::vector<std::string> names;
  for (const NamedBuffer& buffer : buffers)
    if (is_kept(buffer.name, layout)) names.push_back(buffer.name);
  return names;
}

/// Buffers of a wrong length or of one name are a fault of the program.
void require_buffers(const char* who, const ParameterLayout& layout, std::span<const NamedBuffer> buffers) {
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    if (!buffers[i].get && !buffers[i].put && is_kept(buffers[i].name, layout) &&
        buffers[i].buffer.size() != layout.flat_size())
      throw ShapeError(fmt::format("{}: {} of {} elements, expected {}", who, buffers[i].name,
                                   buffers[i].buffer.size(), layout.flat_size()));
    for (std::size_t j = 0; j < i; ++j)
      if (buffers[i].name == buffers[j].name)
        throw ShapeError(fmt::format("{}: two buffers of the name {}", who, buffers[i].name));
  }
}

}  // namespace

bool in_group(std::string_view group, const ParameterEntry& entry) {
  if (group == average_group) return entry.averaged;
  return !entry.whole || group != state_groups[second_moment];
}

bool is_kept(std::string_view group, const ParameterLayout& layout) {
  return std::ranges::any_of(layout.entries(), [&](const auto& entry) { return in_group(group, entry); });
}

std::string checkpoint_file_name(long step) {
  return step_file_name(checkpoint_prefix, step);
}

std::uint64_t checkpoint_bytes(const ParameterLayout& layout) {
  return tensor_bytes(layout, {state_groups.begin(), state_groups.end()});
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
    PendingFile pending(file, "checkpoint", tensor_bytes(layout, names_of(buffers, layout)) + texts);
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
  return open_checkpoint(file).info;
}

CheckpointInfo read_checkpoint(const fs::path& file, const ParameterLayout& layout,
                               std::span<const NamedBuffer> buffers) {
  require_buffers("read_checkpoint", layout, buffers);
  const OpenCheckpoint checkpoint = open_checkpoint(file);
  require_groups(checkpoint, names_of(buffers, layout), other_configuration);
  for (const NamedBuffer& buffer : buffers) read_group(checkpoint, buffer, layout);
  return checkpoint.info;
}

CheckpointInfo read_checkpoint_parameters(const fs::path& file, const ParameterStore& store) {
  const OpenCheckpoint checkpoint = open_checkpoint(file);
  const char* group = store.layout().averaged() ? average_group : parameter_group;
  read_group(checkpoint, {group, store.values_to_write()}, store.layout());
  return checkpoint.info;
}

void verify_checkpoint(const fs::path& file) {
  const OpenCheckpoint checkpoint = open_checkpoint(file);
  for (const TensorRecord& record : checkpoint.records) require_intact_tensor(checkpoint, record);
}

}  // namespace dekoder
