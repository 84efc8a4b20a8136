// SPDX-License-Identifier: Apache-2.0
// What lies where in a checkpoint: what programs of other versions and other readers rely on.
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <fstream>

#include "io/files/xxh64.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "io/run/checkpoint.hpp"
#include "support/disk_calls.hpp"
#include "support/host_tensor.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing::change;
using testing::identical;
using testing::on_host;
using testing::values_of;
using testing_support::message_of;
using testing_support::ScratchFolder;
using Extents = std::vector<std::size_t>;

/// Parameters that count up.
ParameterStore store_of(const ParameterLayout& layout) {
  ParameterStore store(layout);
  change(store.values_to_write(), [&](const auto& values) {
    for (const ParameterEntry& entry : layout.entries())
      for (std::size_t i = 0; i < entry.size(); ++i) values(entry.offset + i) = Real(entry.offset + i);
  });
  return store;
}

ParameterLayout two_tensors() {
  ParameterLayout layout;
  layout.add("head.weight", "V,C", {3, 5}, true, {});
  layout.add("blocks.00.norm.gain", "C", {5}, false, {});
  return layout;
}

std::uint64_t xxh64(const std::string& text) {
  Xxh64 digest;
  digest.update(text);
  return digest.digest();
}

/// "<name>:<bytes of the text>:<text>\n" of an attribute of the root.
template <class Value>
std::string field(const Hdf5File& file, const char* name) {
  std::string text;
  if constexpr (std::is_same_v<Value, std::string>)
    text = file.text_attribute("/", name);
  else
    text = fmt::format("{}", file.attribute<Value>("/", name));
  return fmt::format("{}:{}:{}\n", name, text.size(), text);
}

/// "<path>\n<type>\n<extents>\n<axes>\n<digest>\n" of each tensor, by path.
std::string tensors(const Hdf5File& file) {
  std::string text;
  for (const std::string& group : file.members("/"))
    for (const std::string& name : file.members("/" + group)) {
      const std::string path = "/" + group + "/" + name;
      const Hdf5Dataset dataset = file.dataset(path);
      text += fmt::format("{}\n{}\n{}\n{}\n{:016x}\n", path, hdf5_type_name(dataset.type()),
                          fmt::join(dataset.shape(), ","), file.text_attribute(path, "axes"),
                          file.attribute<std::uint64_t>(path, "digest"));
    }
  return text;
}

/// Digest of the root over the fields of minor version 0 and all tensors.
std::uint64_t root_digest(const Hdf5File& file) {
  return xxh64("dekoder-checkpoint 1\n" + field<long>(file, "step") + field<std::uint64_t>(file, "tokens_seen") +
               field<std::string>(file, "config_yaml") + field<std::string>(file, "tokenizer") +
               field<std::string>(file, "data_hash") + field<double>(file, "validation_loss") +
               field<double>(file, "best_validation_loss") + field<long>(file, "best_step") +
               field<long>(file, "sampled_step") + field<std::uint64_t>(file, "metrics_bytes") +
               field<std::uint64_t>(file, "samples_bytes") + field<std::string>(file, "run_id") +
               field<std::string>(file, "writer") + tensors(file));
}

TEST(CheckpointFormat, DigestsOfTheRootAreThoseOfEarlierPrograms) {
  const ScratchFolder scratch("checkpoint-digest");
  CheckpointInfo info;
  info.step = 12;
  info.tokens_seen = 1234567890123u;
  info.config_yaml = "model:\n  layers: 2\n";
  info.tokenizer = "bytes";
  info.data_hash = "abc/7";
  info.validation_loss = 0.1;
  info.sampled_step = 10;
  info.metrics_bytes = 99;
  info.samples_bytes = 11;
  info.run_id = "run";
  info.writer = "test";
  info.validation_hash = "v";
  info.best_validation_hash = "best";
  info.restarts = "{\"step\":4}\n";
  info.skipped_steps = 3;
  const ParameterStore store = store_of(two_tensors());
  const Tensor1 moment("moment", store.layout().flat_size());
  const std::vector<NamedBuffer> buffers = {{parameter_group, store.values_to_write()}, {"first_moment", moment}};
  const Hdf5File file = Hdf5File::open(write_checkpoint(scratch.path(), info, store.layout(), buffers));
  EXPECT_EQ(file.text_attribute("/", "format"), "dekoder-checkpoint");
  EXPECT_EQ(file.attribute<std::int32_t>("/", "major"), 1);
  EXPECT_EQ(file.attribute<std::int32_t>("/", "minor"), 2);
  EXPECT_EQ(file.attribute<long>("/", "sampled_step"), 10);
  EXPECT_TRUE(tensors(file).starts_with("/first_moment/blocks.00.norm.gain\nfloat32\n5\nC\n")) << tensors(file);
  EXPECT_EQ(file.attribute<std::uint64_t>("/", "digest"), root_digest(file));
  EXPECT_EQ(file.attribute<std::uint64_t>("/", "digest_1"),
            xxh64("dekoder-checkpoint 1.1\n" + field<std::string>(file, "validation_hash") +
                  field<std::string>(file, "best_validation_hash") + field<std::string>(file, "restarts")));
  EXPECT_EQ(file.attribute<std::uint64_t>("/", "digest_2"),
            xxh64("dekoder-checkpoint 1.2\n" + field<long>(file, "skipped_steps")));
  EXPECT_EQ(file.attribute<long>("/", "skipped_steps"), 3);
}

/// A whole checkpoint of minor version 0 whose one tensor, group/norm.gain, counts from 1.
template <class T>
fs::path checkpoint_of(const ScratchFolder& scratch, const std::string& group = parameter_group,
                       const Extents& shape = {3}) {
  const fs::path path = scratch / "other.h5";
  Hdf5File file = Hdf5File::create(path);
  for (const char* name : {"config_yaml", "tokenizer", "data_hash", "run_id", "writer"})
    file.write_attribute("/", name, name);
  for (const char* name : {"step", "best_step", "sampled_step"}) file.write_attribute("/", name, 1L);
  for (const char* name : {"tokens_seen", "metrics_bytes", "samples_bytes"})
    file.write_attribute("/", name, std::uint64_t{1});
  for (const char* name : {"validation_loss", "best_validation_loss"}) file.write_attribute("/", name, 0.5);
  std::vector<T> values = {1, 2, 3};
  values.resize(shape.empty() ? 1 : shape[0]);
  const std::string tensor = "/" + group + "/norm.gain";
  file.write(tensor, std::span<const T>(values), shape);
  file.write_attribute(tensor, "axes", "C");
  Xxh64 digest;
  digest.update(fmt::format("{}\n{}\n{}\nC\n", tensor, hdf5_type_name(hdf5_type_of<T>()), fmt::join(shape, ",")));
  digest.update(std::as_bytes(std::span(values)));
  file.write_attribute(tensor, "digest", digest.digest());
  file.write_attribute("/", "digest", root_digest(file));
  file.write_attribute("/", "format", "dekoder-checkpoint");
  file.write_attribute("/", "major", std::int32_t{1});
  file.write_attribute("/", "minor", std::int32_t{0});
  file.close();
  return path;
}

TEST(CheckpointFormat, ElementsOfAnotherTypeAreNamed) {
  const ScratchFolder scratch("checkpoint-type");
  ParameterLayout layout;
  layout.add("norm.gain", "C", {3}, false, {});
  const ParameterStore store(layout);
  const std::string file = checkpoint_of<Real>(scratch);
  verify_checkpoint(file);
  read_checkpoint_parameters(file, store);
  EXPECT_EQ(values_of(store.values())[2], 3);
  checkpoint_of<double>(scratch);
  verify_checkpoint(file);
  EXPECT_EQ(message_of<ConfigError>([&] { read_checkpoint_parameters(file, store); }),
            file + ":/parameters/norm.gain: holds float64, this program computes in float");
  checkpoint_of<std::int32_t>(scratch);
  EXPECT_EQ(message_of<DataError>([&] { verify_checkpoint(file); }),
            file + ":/parameters/norm.gain: holds int32, expected float32 or float64");
}

TEST(CheckpointFormat, AnotherShapeIsNamed) {
  const ScratchFolder scratch("checkpoint-scalar");
  ParameterLayout layout;
  layout.add("norm.gain", "C", {3}, false, {});
  for (const Extents& shape : {Extents{}, Extents{2}}) {
    const std::string file = checkpoint_of<Real>(scratch, parameter_group, shape);
    EXPECT_EQ(
        message_of<ConfigError>([&] {
          read_checkpoint_parameters(file, ParameterStore(layout));
        }).find(fmt::format("{}:/parameters/norm.gain: has shape ({}), expected (3)", file, fmt::join(shape, ","))),
        0u);
    const std::string said = message_of<DataError>([&] { verify_checkpoint(file); });
    const std::string heading =
        "/parameters/norm.gain\n" + std::string(hdf5_type_name(hdf5_type_of<Real>())) + "\n\nC\n";
    const std::uint64_t stored = Hdf5File::open(file).attribute<std::uint64_t>("/parameters/norm.gain", "digest");
    EXPECT_EQ(said, shape.empty()
                        ? fmt::format("{}:/parameters/norm.gain: is damaged (digest differs: stored {:016x}, "
                                      "computed {:016x})",
                                      file, stored, xxh64(heading))
                        : "");
  }
}

TEST(CheckpointFormat, GroupsThatBeginAlikeAreTwo) {
  const ScratchFolder scratch("checkpoint-group");
  ParameterLayout layout;
  layout.add("norm.gain", "C", {3}, false, {});
  const std::string file = checkpoint_of<Real>(scratch, "parameters_of_another");
  EXPECT_NE(message_of<ConfigError>([&] {
              read_checkpoint_parameters(file, ParameterStore(layout));
            }).find("holds no tensor /parameters/norm.gain, expected shape (3)"),
            std::string::npos);
}

TEST(CheckpointFormat, ForeignFilesAreNamed) {
  const ScratchFolder scratch("checkpoint-foreign");
  for (const bool other_format : {true, false}) {
    Hdf5File file = Hdf5File::create(scratch / "foreign.h5");
    if (other_format) file.write_attribute("/", "format", "dekoder-tokens");
    file.close();
    EXPECT_EQ(message_of<DataError>([&] { read_checkpoint_info(scratch / "foreign.h5"); }),
              (scratch / "foreign.h5").string() + ": is HDF5 but no checkpoint of dekoder");
  }
}

/// Tensors on both sides of the 1 MiB that a chunk may have, and how they are cut.
const std::vector<std::pair<std::vector<int>, Extents>> cut_tensors = {{{262'144}, {262'144}},
                                                                       {{262'145}, {131'073}},
                                                                       {{700'001}, {233'334}},
                                                                       {{512, 512}, {512, 512}},
                                                                       {{701, 512}, {351, 512}},
                                                                       {{2, 262'144}, {1, 262'144}},
                                                                       {{2, 262'145}, {1, 131'073}},
                                                                       {{3, 300'000}, {1, 150'000}},
                                                                       {{5, 100'001}, {3, 100'001}},
                                                                       {{1, 1}, {1, 1}},
                                                                       {{1}, {1}}};

TEST(CheckpointFormat, ChunksShareTheRowsEvenly) {
  const ScratchFolder scratch("checkpoint-chunks");
  ParameterLayout layout;
  for (std::size_t i = 0; i < cut_tensors.size(); ++i)
    layout.add(fmt::format("tensor.{:02}", i), "X", cut_tensors[i].first, false, {});
  const ParameterStore store = store_of(layout), other(layout);
  const NamedBuffer buffer{parameter_group, store.values_to_write()},
      into{parameter_group, other.values_to_write()};
  const fs::path path = write_checkpoint(scratch.path(), CheckpointInfo{}, layout, std::span(&buffer, 1));
  {
    const Hdf5File file = Hdf5File::open(path);
    for (std::size_t i = 0; i < cut_tensors.size(); ++i)
      EXPECT_EQ(file.dataset(fmt::format("/parameters/tensor.{:02}", i)).chunk(), cut_tensors[i].second) << i;
  }
  verify_checkpoint(path);
  read_checkpoint(path, layout, std::span(&into, 1));
  EXPECT_TRUE(identical(other.values(), store.values()));
}

TEST(CheckpointFormat, ChunksCarryChecksumsOfTheLibrary) {
  const ScratchFolder scratch("checkpoint-fletcher");
  const ParameterStore store = store_of(two_tensors());
  const NamedBuffer buffer{parameter_group, store.values_to_write()};
  const fs::path path = write_checkpoint(scratch.path(), CheckpointInfo{}, store.layout(), std::span(&buffer, 1));
  std::string bytes(fs::file_size(path), '\0');
  std::ifstream(path, std::ios::binary).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  const ParameterEntry& entry = store.layout().find("head.weight");
  const auto parameters = on_host(store.values());
  const std::string values(reinterpret_cast<const char*>(&parameters(entry.offset)), entry.size() * sizeof(Real));
  const std::size_t at = bytes.find(values);
  ASSERT_NE(at, std::string::npos);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  scratch.write(path.filename().string(), bytes);
  const std::string said = message_of<DataError>([&] { verify_checkpoint(path); });
  EXPECT_NE(said.find("/parameters/head.weight"), std::string::npos) << said;
  EXPECT_NE(said.find("Fletcher32"), std::string::npos) << said;
}

/// Writes two buffers of the layout and expects that what was reserved is enough and little more.
void expect_reserved(const ParameterLayout& layout, const CheckpointInfo& info) {
  const ScratchFolder scratch("checkpoint-space");
  const ParameterStore store = store_of(layout);
  const std::vector<NamedBuffer> buffers = {{parameter_group, store.values_to_write()},
                                            {"moment", store.values_to_write()}};
  const std::uint64_t size = fs::file_size(write_checkpoint(scratch.path(), info, layout, buffers));
  const auto reserved = std::uint64_t(testing_support::reserved_bytes);
  EXPECT_GE(reserved, size);
  EXPECT_LE(reserved, size + size / 64 + (1 << 16) + 2 * 2048 * layout.entries().size());
}

TEST(CheckpointFormat, SpaceIsReservedForTheWholeFile) {
  expect_reserved(two_tensors(), CheckpointInfo{});
  for (std::string CheckpointInfo::* text :
       {&CheckpointInfo::config_yaml, &CheckpointInfo::tokenizer, &CheckpointInfo::restarts}) {
    CheckpointInfo info;
    info.*text = std::string(1 << 20, 'x');
    expect_reserved(two_tensors(), info);
  }
  for (const auto& [shape, chunk] : cut_tensors) {
    SCOPED_TRACE(::testing::PrintToString(shape));
    ParameterLayout layout;
    layout.add("tensor", "X", shape, false, {});
    expect_reserved(layout, CheckpointInfo{});
  }
  ParameterLayout many;
  for (int i = 0; i < 500; ++i) many.add(fmt::format("blocks.{:03}.norm.gain", i), "C", {7}, false, {});
  expect_reserved(many, CheckpointInfo{});
}

}  // namespace
}  // namespace dekoder
