// SPDX-License-Identifier: Apache-2.0
#include "io/weights/weight_type.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "io/hdf5/half.hpp"
#include "tensor/bfloat16.hpp"

namespace dekoder {

static_assert(std::endian::native == std::endian::little, "elements are written as they are");

namespace {

constexpr std::array names = {"float32", "float16", "bfloat16", "q8_0"};

struct Block {
  Half scale;
  std::int8_t values[q8_0_block];
};
static_assert(sizeof(Block) == 34);

/// Where a number that is finite has none in a type.
template <class Stored>
std::optional<std::size_t> round_all(std::span<const float> values, std::vector<std::byte>& bytes,
                                     Stored round(float), float widen(Stored)) {
  std::optional<std::size_t> lost;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Stored stored = round(values[i]);
    if (std::isfinite(values[i]) && !std::isfinite(widen(stored)) && !lost) lost = i;
    std::memcpy(&bytes[i * sizeof(Stored)], &stored, sizeof(Stored));
  }
  return lost;
}

std::optional<std::size_t> round_block(std::span<const float> values, Block& block) {
  std::size_t largest = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) return i;
    if (std::abs(values[i]) > std::abs(values[largest])) largest = i;
  }
  const float scale = std::abs(values[largest]) / 127;
  block.scale = to_half(scale);
  if (!std::isfinite(to_float(block.scale))) return largest;
  const float inverse = std::isfinite(1 / scale) ? 1 / scale : 0;  // the scale is 0 too, and with it all numbers
  for (std::size_t i = 0; i < values.size(); ++i)
    block.values[i] = static_cast<std::int8_t>(std::round(values[i] * inverse));
  return std::nullopt;
}

}  // namespace

const char* weight_type_name(WeightType type) {
  return names[std::size_t(type)];
}

WeightType weight_type_of(std::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) throw std::logic_error(fmt::format("no type of weights is '{}'", name));
  return WeightType(found - names.begin());
}

std::uint64_t bytes_of(WeightType type, std::uint64_t elements) {
  if (type == WeightType::q8_0) return (elements + q8_0_block - 1) / q8_0_block * sizeof(Block);
  return elements * (type == WeightType::float32 ? sizeof(float) : sizeof(Half));
}

std::optional<std::size_t> encode(WeightType type, std::span<const float> values, std::vector<std::byte>& bytes) {
  bytes.resize(bytes_of(type, values.size()));
  switch (type) {
    case WeightType::float32:
      std::memcpy(bytes.data(), values.data(), values.size_bytes());
      return std::nullopt;
    case WeightType::float16:
      return round_all<Half>(values, bytes, to_half, to_float);
    case WeightType::bfloat16:
      return round_all<BFloat16>(
          values, bytes, [](float x) { return BFloat16(x); }, [](BFloat16 x) { return float(x); });
    case WeightType::q8_0:
      break;
  }
  if (values.size() % q8_0_block != 0)
    throw std::logic_error(fmt::format("{} elements are no whole blocks of q8_0", values.size()));
  for (std::size_t i = 0; i < values.size(); i += q8_0_block) {
    Block block;
    if (const auto lost = round_block(values.subspan(i, q8_0_block), block)) return i + *lost;
    std::memcpy(&bytes[i / q8_0_block * sizeof(Block)], &block, sizeof(Block));
  }
  return std::nullopt;
}

}  // namespace dekoder
