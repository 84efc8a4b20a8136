// SPDX-License-Identifier: Apache-2.0
#include "io/run/black_box.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "io/files/durable_file.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "io/run/step_files.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

constexpr const char* format_of_black_box = "dekoder black box";
constexpr int major_of_black_box = 1, minor_of_black_box = 1;

/// visit(name, field) for what is an attribute of the root.
template <class Box, class Visit>
void for_each_attribute(Box& box, const Visit& visit) {
  visit("step", box.step);
  visit("ranks", box.ranks);
  visit("reason", box.reason);
  visit("run_id", box.run_id);
  visit("config", box.config_yaml);
  visit("writer", box.writer);
}

/// visit(name, member) for the columns of /tensors that are numbers.
template <class Visit>
void for_each_column(const Visit& visit) {
  visit("/tensors/micro_batch", &TensorHealth::micro);
  visit("/tensors/elements", &TensorHealth::elements);
  visit("/tensors/nans", &TensorHealth::nans);
  visit("/tensors/infinities", &TensorHealth::infinities);
  visit("/tensors/first", &TensorHealth::first);
  visit("/tensors/largest", &TensorHealth::largest);
}

std::string parameter_path(const ParameterEntry& entry) {
  return "/parameters/" + entry.name;
}

std::vector<std::size_t> shape_of(const ParameterEntry& entry) {
  return {entry.shape.begin(), entry.shape.end()};
}

template <class Member>
std::vector<std::string> texts_of(const std::vector<TensorHealth>& tensors, Member member) {
  std::vector<std::string> texts;
  for (const TensorHealth& tensor : tensors) texts.push_back(tensor.*member);
  return texts;
}

void write_contents(Hdf5File& file, const BlackBox& box, const ParameterStore& store) {
  file.write_attribute("/", "format", format_of_black_box);
  file.write_attribute("/", "major", std::int32_t{major_of_black_box});
  file.write_attribute("/", "minor", std::int32_t{minor_of_black_box});
  for_each_attribute(box, [&](const char* name, const auto& value) { file.write_attribute("/", name, value); });
  const std::size_t samples = box.sample_indices.size();
  const std::vector<std::size_t> tokens = {samples, box.inputs.size() / samples}, rows = {samples};
  file.write("/batch/inputs", std::span(box.inputs), tokens);
  file.write("/batch/targets", std::span(box.targets), tokens);
  file.write("/batch/sample_indices", std::span(box.sample_indices), rows);
  file.write("/batch/sources", std::span(box.sources), rows);
  file.write("/batch/windows", std::span(box.windows), rows);
  file.write("/losses", std::span(box.losses));
  file.create_group("/parameters");
  for (const ParameterEntry& entry : store.layout().entries()) {
    const auto host =
        Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), ParameterStore::flat_slice(store.values(), entry));
    file.write(parameter_path(entry), std::span<const Master>(host.data(), host.size()), shape_of(entry));
    file.write_attribute(parameter_path(entry), "axes", entry.axes);
  }
  if (!box.tensors.empty()) {
    file.write_texts("/tensors/name", texts_of(box.tensors, &TensorHealth::name));
    file.write_texts("/tensors/operation", texts_of(box.tensors, &TensorHealth::operation));
    for_each_column([&]<class T>(const char* name, T TensorHealth::* member) {
      std::vector<T> column;
      for (const TensorHealth& tensor : box.tensors) column.push_back(tensor.*member);
      file.write(name, std::span<const T>(column));
    });
  }
  if (!box.metrics.empty()) file.write_texts("/metrics", box.metrics);
}

Hdf5File open_black_box(const fs::path& path) {
  Hdf5File file = Hdf5File::open(path);
  if (!file.has_attribute("/", "format") || file.text_attribute("/", "format") != format_of_black_box)
    throw DataError(
        "{}: is HDF5 but no black box; expected what `dekoder train` wrote of a step that was not finite",
        path.string());
  if (const int major = file.attribute<std::int32_t>("/", "major"); major > major_of_black_box)
    throw DataError("{}: has black box format {}, this program reads up to {}; use the program that wrote it",
                    path.string(), major, major_of_black_box);
  return file;
}

}  // namespace

std::string black_box_file_name(long step) {
  return step_file_name("step-", step);
}

void write_black_box(const fs::path& path, const BlackBox& box, const ParameterStore& store) {
  const auto fail = [&](const std::exception& error) {
    throw SaveError("the black box of step {} is not saved: {}", box.step, error.what());
  };
  try {
    if (const std::string obstacle = folder_obstacle(path.parent_path()); !obstacle.empty())
      throw DataError("{} {}; rename it", path.parent_path().string(), obstacle);
    fs::create_directory(path.parent_path());
    const std::uint64_t bytes = store.values().size() * sizeof(Master) + 8 * box.inputs.size() + (1 << 16);
    PendingFile pending(path, "black_box", bytes);
    Hdf5File file = Hdf5File::create(pending);
    write_contents(file, box, store);
    file.close();
    pending.commit([](const fs::path& written) { read_black_box(written); });
  } catch (const DataError& error) {
    fail(error);
  } catch (const fs::filesystem_error& error) {
    fail(error);
  }
}

BlackBox read_black_box(const fs::path& path) {
  const Hdf5File file = open_black_box(path);
  BlackBox box;
  for_each_attribute(box, [&]<class T>(const char* name, T& value) {
    if constexpr (std::is_same_v<T, std::string>)
      value = file.text_attribute("/", name);
    else
      value = file.attribute<T>("/", name);
  });
  box.inputs = file.read<std::int32_t>("/batch/inputs");
  box.targets = file.read<std::int32_t>("/batch/targets");
  box.sample_indices = file.read<std::uint64_t>("/batch/sample_indices");
  if (file.exists("/batch/sources")) box.sources = file.read<std::uint64_t>("/batch/sources");
  box.windows = file.read<std::uint64_t>("/batch/windows");
  box.losses = file.read<double>("/losses");
  if (file.exists("/tensors")) {
    const std::vector<std::string> names = file.read_texts("/tensors/name");
    const std::vector<std::string> operations = file.read_texts("/tensors/operation");
    box.tensors.resize(std::min(names.size(), operations.size()));
    for (std::size_t i = 0; i < box.tensors.size(); ++i) {
      box.tensors[i].name = names[i];
      box.tensors[i].operation = operations[i];
    }
    for_each_column([&]<class T>(const char* name, T TensorHealth::* member) {
      const std::vector<T> column = file.read<T>(name);
      for (std::size_t i = 0; i < std::min(column.size(), box.tensors.size()); ++i)
        box.tensors[i].*member = column[i];
    });
  }
  if (file.exists("/metrics")) box.metrics = file.read_texts("/metrics");
  return box;
}

void read_black_box_parameters(const fs::path& path, const ParameterStore& store) {
  const Hdf5File file = open_black_box(path);
  for (const ParameterEntry& entry : store.layout().entries()) {
    const auto slice = ParameterStore::flat_slice(store.values_to_write(), entry);
    const auto host = Kokkos::create_mirror_view(Kokkos::HostSpace(), slice);
    file.read(parameter_path(entry), std::span<Master>(host.data(), host.size()), shape_of(entry));
    Kokkos::deep_copy(slice, host);
  }
}

}  // namespace dekoder
