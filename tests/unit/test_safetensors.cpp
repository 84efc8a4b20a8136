// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>

#include "base/error.hpp"
#include "io/safetensors/safetensors_file.hpp"
#include "io/safetensors/safetensors_writer.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing_support::message_of;
using testing_support::ScratchFolder;

std::string file_of(const std::string& header, const std::string& data, std::uint64_t length) {
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + header + data;
}
std::string file_of(const std::string& header, const std::string& data) {
  return file_of(header, data, header.size());
}

template <class T>
std::string bytes_of(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

std::string refusal(const ScratchFolder& folder, const std::string& contents) {
  const fs::path file = folder.write("broken.safetensors", contents);
  const std::string message = message_of<DataError>([&] { SafetensorsFile{file}; });
  const std::string prefix = file.string() + ": ";
  return message.starts_with(prefix) ? message.substr(prefix.size()) : "not with the file's name: " + message;
}

std::vector<float> values_of(const SafetensorsFile& file, std::size_t i) {
  std::vector<float> values(file.tensors().at(i).elements);
  file.read(file.tensors().at(i), values);
  return values;
}

TEST(Safetensors, EveryTypeOfWeightsIsRead) {
  const ScratchFolder folder("safetensors");
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"d":{"dtype":"F64","shape":[2],"data_offsets":[12,28]},)"
      R"("a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[],"data_offsets":[8,10]},)"
      R"("c":{"dtype":"BF16","shape":[1],"data_offsets":[10,12]},"e":{"dtype":"I64","shape":[0,7],"data_offsets":[28,28]}}   )";
  const std::string data =
      bytes_of<float>({1.5f, -0.0f}) + bytes_of<std::uint16_t>({0x3555, 0xC049}) + bytes_of<double>({1e300, 0.1});
  const SafetensorsFile file(folder.write("a.safetensors", file_of(header, data)));
  ASSERT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.tensors()[0].name, "a");
  EXPECT_EQ(file.tensors()[0].shape, (std::vector<std::uint64_t>{1, 2}));
  EXPECT_EQ(values_of(file, 0)[0], 1.5f);
  EXPECT_TRUE(std::signbit(values_of(file, 0)[1]));
  EXPECT_FLOAT_EQ(values_of(file, 1)[0], 0.33325195f);
  EXPECT_EQ(values_of(file, 2)[0], -3.140625f);
  EXPECT_EQ(values_of(file, 3), (std::vector{INFINITY, 0.1f}));
  EXPECT_NE(message_of<DataError>([&] { values_of(file, 4); }).find("type I64; expected F32, F16, BF16 or F64"),
            std::string::npos);
}

TEST(Safetensors, DamagedAndHostileFilesEndInOneLine) {
  std::string ones;
  for (int i = 1; i < 200; ++i) ones += ",1";
  const ScratchFolder folder("safetensors");
  const auto tensor = [](const std::string& name, const std::string& type, const std::string& shape,
                         const std::string& offsets) {
    return "\"" + name + R"(":{"dtype":")" + type + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
  };
  const auto one = [&](const std::string& type, const std::string& shape, const std::string& offsets,
                       const std::string& data = "12345678") {
    return file_of("{" + tensor("x", type, shape, offsets) + "}", data);
  };
  const std::string good = tensor("x", "F32", "[2]", "[0,8]");
  struct Row {
    std::string contents, message;
  };
  for (const Row& row : std::vector<Row>{
           {"", "has 0 bytes; expected a safetensors file"},
           {"1234567", "has 7 bytes"},
           {file_of("{}", "", 1), "says that its header has 1 bytes; expected 2 to 2"},
           {file_of("{}", "", 3), "says that its header has 3 bytes; expected 2 to 2, in a safetensors file of 10"},
           {file_of("{}", "", ~std::uint64_t{0}), "says that its header has 18446744073709551615 bytes"},
           {file_of("{}", "", std::uint64_t{1} << 63), "says that its header has 9223372036854775808 bytes"},
           {file_of("[]", ""), "its header begins with '[]'; expected JSON in braces"},
           {file_of("  {}", ""), "its header begins with '  {}'"},
           {file_of(std::string("{}\0x", 4), ""), "and has a zero byte"},
           {file_of("{]", ""), "is no JSON"},
           {file_of("{\"\xff\":1}", ""), "is no JSON"},
           {file_of(std::string(40, '{'), ""), "is no JSON"},
           {file_of("{\"a\":" + std::string(5000, '[') + std::string(5000, ']') + "}", ""), "nests deeper than 32"},
           {file_of("{\"__metadata__\":{\"a\":1}}", ""), "'__metadata__'.a is 1; expected a text"},
           {file_of("{\"__metadata__\":[]}", ""), "'__metadata__' is []; expected an object of texts"},
           {file_of("{" + good + "," + good + "}", "12345678"), "has the key 'x' twice in one object"},
           {file_of("{\"x\":7}", ""), "'x' is 7; expected an object"},
           {file_of("{\"x\":{}}", ""), "'x'.dtype is null; expected a text"},
           {one("F33", "[2]", "[0,8]"), "'x'.dtype is \"F33\"; expected F32"},
           {one("", "[2]", "[0,8]"), "'x'.dtype is \"\"; expected F32"},
           {one("F32", "2", "[0,8]"), "'x'.shape is 2; expected a list"},
           {one("F32", "[-2]", "[0,8]"), "'x'.shape[0] is -2; expected an extent, 0 to"},
           {one("F32", "[2.0]", "[0,8]"), "'x'.shape[0] is 2.0; expected an extent"},
           {one("F32", "[18446744073709551618]", "[0,8]"),
            "'x'.shape[0] is 1.8446744073709552e+19; expected an extent"},
           {one("F32", "[18446744073709551615]", "[0,8]"),
            "'x'.shape[0] is 18446744073709551615; expected an extent"},
           {one("F32", "[4294967296,4294967298]", "[0,8]"), "expected extents whose product is counted in 64 bits"},
           {one("F32", "[4611686018427387906]", "[0,8]"), "expected extents whose product is counted in 64 bits"},
           {one("F32", "[9223372036854775807,0]", "[0,8]"),
            "'x'.shape is [9223372036854775807,0]; expected extents"},
           {one("F32", "[3]", "[0,8]"), "'x'.data_offsets is [0,8]; expected 12 bytes, as F32 [3] has"},
           {one("F32", "[1" + ones + "]", "[0,8]"), "... (600 bytes) has; "},
           {one("F32", "[2]", "[8,0]"), "'x'.data_offsets is [8,0]; expected 8 bytes"},
           {one("F32", "[2]", "[0,9]"), "'x'.data_offsets[1] is 9; expected a place in the data, 0 to 8"},
           {one("F32", "[2]", "[-8,0]"), "'x'.data_offsets[0] is -8; expected a place in the data, 0 to 8"},
           {one("F32", "[2]", "[18446744073709551608,0]"),
            "data_offsets[0] is 18446744073709551608; expected a place"},
           {one("F32", "[2]", "[0]"), "'x'.data_offsets is [0]; expected two numbers"},
           {one("F32", "[1]", "[4,8]"),
            "'x' begins at byte 4 of the data, behind a hole after the tensor before it, which ends at 0"},
           {one("F32", "[1]", "[0,4]"), "has 8 bytes of data and its tensors 4"},
           {file_of("{}", "1234"), "has 4 bytes of data and its tensors 0"},
           {file_of("{" + good + "," + tensor("y", "F32", "[2]", "[0,8]") + "}", "12345678"),
            "begins at byte 0 of the data, within the tensor before it, which ends at 8"},
           {file_of("{" + good + "," + tensor("y", "F32", "[1]", "[4,8]") + "}", "12345678"),
            "'y' begins at byte 4 of the data, within the tensor before it, which ends at 8"}}) {
    const std::string message = refusal(folder, row.contents);
    EXPECT_NE(message.find(row.message), std::string::npos) << row.message << "\n" << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 600u) << message;
  }
}

TEST(Safetensors, EveryCutIsRefused) {
  const ScratchFolder folder("safetensors");
  const std::string whole =
      file_of(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", bytes_of<float>({1, 2}));
  EXPECT_NO_THROW(SafetensorsFile{folder.write("whole.safetensors", whole)});
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes)
    EXPECT_THROW(SafetensorsFile{folder.write("cut.safetensors", whole.substr(0, bytes))}, DataError) << bytes;
}

/// Whatever a byte of length or header becomes, the file is read or refused with its name.
TEST(Safetensors, EveryChangedByteIsReadOrRefused) {
  const ScratchFolder folder("safetensors");
  const std::string whole =
      file_of(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", bytes_of<float>({1, 2}));
  int refused = 0, read = 0;
  for (std::size_t at = 0; at < whole.size() - 8; ++at)
    for (const char byte : {'\0', '"', '0', '9', '-', ',', ']', '}', '\\', '\x80', '\xff'}) {
      if (whole[at] == byte) continue;
      std::string changed = whole;
      changed[at] = byte;
      try {
        const SafetensorsFile file(folder.write("changed.safetensors", changed));
        for (const SafetensorsTensor& tensor : file.tensors()) EXPECT_LE(tensor.end, 8u);
        ++read;
      } catch (const DataError& error) {
        EXPECT_NE(std::string(error.what()).find("changed.safetensors"), std::string::npos) << error.what();
        ++refused;
      }
    }
  EXPECT_GT(refused, 10 * read);
  EXPECT_GT(read, 0);  // the tensor's name may be another
}

/// Tensors x0, x1, ... of these extents, with elements of their own.
std::vector<TensorToWrite> some_tensors(const std::vector<std::vector<std::uint64_t>>& shapes) {
  std::vector<TensorToWrite> tensors;
  for (std::size_t i = 0; i < shapes.size(); ++i)
    tensors.push_back({"x" + std::to_string(i), shapes[i],
                       [i](std::span<float> out) { std::iota(out.begin(), out.end(), 0.1f + float(i) * 1000); }});
  return tensors;
}

TEST(Safetensors, WhatIsWrittenIsRead) {
  const ScratchFolder folder("safetensors");
  const std::vector<TensorToWrite> tensors = some_tensors({{3, 5}, {7}, {2, 1}});
  write_safetensors(folder.path(), tensors);
  const SafetensorsFolder read(folder.path());
  ASSERT_EQ(read.tensors().size(), 3u);
  for (const TensorToWrite& tensor : tensors) {
    const auto& place = read.tensors().at(tensor.name);
    EXPECT_EQ(place.tensor->shape, tensor.shape);
    std::vector<float> expected(place.tensor->elements), found(expected.size());
    tensor.fill(expected);
    place.file->read(*place.tensor, found);
    EXPECT_EQ(found, expected);
  }
  std::uint64_t length = 0;
  std::ifstream(folder / "model.safetensors", std::ios::binary).read(reinterpret_cast<char*>(&length), 8);
  EXPECT_EQ(length % 8, 0u);
}

TEST(Safetensors, ShardsHaveAnIndex) {
  const ScratchFolder folder("safetensors");
  std::vector<TensorToWrite> tensors = some_tensors({{10}, {10}, {100}, {1}, {1}});
  for (TensorToWrite& tensor : tensors) tensor.type = WeightType::bfloat16;
  write_safetensors(folder.path(), tensors, 41);  // 20 + 20 | 200 | 2 + 2
  for (const char* name : {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                           "model-00003-of-00003.safetensors", "model.safetensors.index.json"})
    EXPECT_TRUE(fs::exists(folder / name)) << name;
  const SafetensorsFolder read(folder.path());
  EXPECT_EQ(read.tensors().size(), 5u);
  EXPECT_EQ(read.tensors().at("x1").file->path().filename(), "model-00001-of-00003.safetensors");
  EXPECT_EQ(read.tensors().at("x2").file->path().filename(), "model-00002-of-00003.safetensors");
  fs::remove(folder / "model-00002-of-00003.safetensors");
  EXPECT_NE(message_of<DataError>([&] { SafetensorsFolder{folder.path()}; }).find("no such safetensors file"),
            std::string::npos);
}

TEST(Safetensors, AnIndexThatIsNotOfItsShardsIsRefused) {
  const ScratchFolder folder("safetensors");
  const std::string shard = file_of(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234");
  folder.write("a.safetensors", shard);
  folder.write("b.safetensors", shard);
  const auto refusal_of = [&](const std::string& map) {
    folder.write("model.safetensors.index.json", R"({"weight_map":)" + map + "}");
    return message_of<DataError>([&] { SafetensorsFolder{folder.path()}; });
  };
  EXPECT_EQ(refusal_of(R"({"x":"a.safetensors"})"), "");
  EXPECT_NE(refusal_of(R"({"x":"a.safetensors","y":"b.safetensors"})").find("'x' is in a.safetensors too"),
            std::string::npos);
  EXPECT_NE(refusal_of(R"({"y":"a.safetensors"})").find("'y' is not in a.safetensors, where the index has it"),
            std::string::npos);
  EXPECT_NE(refusal_of(R"({"x":"/etc/a.safetensors"})").find("expected a file of the same folder"),
            std::string::npos);
  EXPECT_NE(refusal_of(R"({"x":7})").find("weight_map['x'] is 7; expected a text"), std::string::npos);
  EXPECT_NE(refusal_of("[]").find("weight_map is []; expected an object"), std::string::npos);
  fs::remove(folder / "model.safetensors.index.json");
  EXPECT_NE(
      message_of<DataError>([&] { SafetensorsFolder{folder.path()}; }).find("has no model.safetensors and no"),
      std::string::npos);
  folder.write("pytorch_model.bin", "");
  EXPECT_NE(
      message_of<DataError>([&] { SafetensorsFolder{folder.path()}; }).find("write it again with save_pretrained"),
      std::string::npos);
}

}  // namespace
}  // namespace dekoder
