// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "base/error.hpp"
#include "io/gguf/gguf_writer.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing_support::message_of;
using testing_support::ScratchFolder;

std::string text_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The bytes of numbers, one behind the other.
template <class... T>
std::string bytes(T... values) {
  std::string all;
  (all.append(reinterpret_cast<const char*>(&values), sizeof(values)), ...);
  return all;
}
std::string halves(const std::vector<std::uint16_t>& bits) {
  return {reinterpret_cast<const char*>(bits.data()), 2 * bits.size()};
}
std::string text(const std::string& value) {
  return bytes(std::uint64_t(value.size())) + value;
}

std::string encoded(WeightType type, const std::vector<float>& values) {
  std::vector<std::byte> found;
  EXPECT_EQ(encode(type, values, found), std::nullopt);
  return {reinterpret_cast<const char*>(found.data()), found.size()};
}
std::optional<std::size_t> lost(WeightType type, const std::vector<float>& values) {
  std::vector<std::byte> found;
  return encode(type, values, found);
}

TensorToWrite tensor(const std::string& name, std::vector<std::uint64_t> shape, std::vector<float> values,
                     WeightType type = WeightType::float32) {
  return {name, std::move(shape), [values](std::span<float> out) { std::ranges::copy(values, out.begin()); }, type};
}

TEST(Gguf, AFileIsLaidOutAsVersion3Says) {
  const ScratchFolder folder("gguf");
  const fs::path file = folder / "a.gguf";
  const GgufMetadata metadata = {{"u", std::uint32_t{7}},
                                 {"f", 0.5f},
                                 {"b", true},
                                 {"s", "h\xC3\xA9"},
                                 {"au", std::vector<std::uint8_t>{1, 255}},
                                 {"ai", std::vector<std::int32_t>{-1}},
                                 {"af", std::vector<float>{1.5f, -2}},
                                 {"as", std::vector<std::string>{"x", ""}},
                                 {"none", std::vector<std::string>{}}};
  std::vector<float> row(64, 0.0f);
  row[33] = -127;
  write_gguf(
      file, metadata,
      std::vector{tensor("m", {2, 3}, {1, 2, 3, 4, 5, 6}, WeightType::float16), tensor("v", {1}, {8}),
                  tensor("q", {1, 64}, row, WeightType::q8_0), tensor("w", {2}, {-1, 3}, WeightType::bfloat16)});
  using U32 = std::uint32_t;
  using U64 = std::uint64_t;
  std::string expected = "GGUF" + bytes(U32{3}, U64{4}, U64{9});
  expected += text("u") + bytes(U32{4}, U32{7});
  expected += text("f") + bytes(U32{6}, 0.5f);
  expected += text("b") + bytes(U32{7}) + "\1";
  expected += text("s") + bytes(U32{8}) + text("h\xC3\xA9");
  expected += text("au") + bytes(U32{9}, U32{0}, U64{2}) + "\x01\xFF";
  expected += text("ai") + bytes(U32{9}, U32{5}, U64{1}, std::int32_t{-1});
  expected += text("af") + bytes(U32{9}, U32{6}, U64{2}, 1.5f, -2.0f);
  expected += text("as") + bytes(U32{9}, U32{8}, U64{2}) + text("x") + text("");
  expected += text("none") + bytes(U32{9}, U32{8}, U64{0});
  // The innermost extent first; ggml's types; places in the data.
  expected += text("m") + bytes(U32{2}, U64{3}, U64{2}, U32{1}, U64{0});
  expected += text("v") + bytes(U32{1}, U64{1}, U32{0}, U64{32});
  expected += text("q") + bytes(U32{2}, U64{64}, U64{1}, U32{8}, U64{64});
  expected += text("w") + bytes(U32{1}, U64{2}, U32{30}, U64{160});
  const auto pad = [&] { expected.resize((expected.size() + 31) / 32 * 32, '\0'); };
  pad();
  expected += halves({0x3C00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600});
  pad();
  expected += bytes(8.0f);
  pad();
  std::string block = halves({0x3C00}) + std::string(32, '\0');
  block[2 + 1] = -127;
  expected += halves({0}) + std::string(32, '\0') + block;
  pad();
  expected += halves({0xBF80, 0x4040});
  pad();
  EXPECT_EQ(text_of(file), expected);
}

TEST(Gguf, Float16IsTheNearestNumber) {
  // Ties to even, subnormals, the smallest and half of it, the largest, and both zeros.
  EXPECT_EQ(encoded(WeightType::float16, {1.00048828125f, 1.00146484375f, 0x1p-15f, 0x1p-24f, 0x1.8p-24f, 0x1p-25f,
                                          65504.0f, 65519.0f, 0.0f, -0.0f}),
            halves({0x3C00, 0x3C02, 0x0200, 0x0001, 0x0002, 0x0000, 0x7BFF, 0x7BFF, 0x0000, 0x8000}));
  EXPECT_EQ(lost(WeightType::float16, {1, 65520, 1e30f}), 1u);
  EXPECT_EQ(lost(WeightType::float16, {INFINITY, NAN}), std::nullopt);  // it has these
  EXPECT_EQ(lost(WeightType::bfloat16, {std::numeric_limits<float>::max()}), 0u);
}

TEST(Gguf, Q8RoundsAtTheScaleOfItsBlock) {
  std::vector<float> values(32, 0.0f);
  values[0] = 254;  // the scale is 2, and halves go away from 0
  values[1] = 1;
  values[2] = -1;
  values[3] = 0.99f;
  values[4] = -254;
  std::string expected = halves({0x4000}) + std::string(32, '\0');
  for (const auto& [place, value] : {std::pair{0, 127}, {1, 1}, {2, -1}, {4, -127}})
    expected[std::size_t(2 + place)] = char(value);
  EXPECT_EQ(encoded(WeightType::q8_0, values), expected);
  EXPECT_EQ(encoded(WeightType::q8_0, std::vector(32, 1e-44f)), std::string(34, '\0'));  // 1 / scale is infinite
  values[7] = 65520.0f * 127;
  EXPECT_EQ(lost(WeightType::q8_0, values), 7u);
  values[7] = NAN;
  EXPECT_EQ(lost(WeightType::q8_0, values), 7u);
  EXPECT_THROW(lost(WeightType::q8_0, {1, 2}), std::logic_error);
}

TEST(Gguf, ANumberThatTheTypeLacksLeavesNoFile) {
  const ScratchFolder folder("gguf");
  const fs::path file = folder / "a.gguf";
  std::vector<float> values(300'000, 1.0f);
  values[299'999] = -70'000;
  EXPECT_EQ(message_of<DataError>(
                [&] { write_gguf(file, {}, std::vector{tensor("w", {300'000}, values, WeightType::float16)}); }),
            file.string() +
                ": 'w' cannot be written as float16, which has no number for its element 299999, -70000; expected "
                "weights that have one: take --dtype float32");
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace dekoder
