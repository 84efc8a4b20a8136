// SPDX-License-Identifier: Apache-2.0
// Numbers of files of weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace dekoder {

/// Forms of a file's elements; the names are config.json's.
enum class WeightType {
  float32,
  float16,
  bfloat16,
  q8_0  ///< of ggml: blocks of 32, whole numbers of 8 bits times a scale in float16
};
inline constexpr std::uint64_t q8_0_block = 32;  ///< elements

const char* weight_type_name(WeightType type);
/// The reverse; throws std::logic_error for another text, which check_command refuses.
WeightType weight_type_of(std::string_view name);

/// Bytes of so many elements; of q8_0 whole blocks.
std::uint64_t bytes_of(WeightType type, std::uint64_t elements);

/// Replaces `bytes` with the elements, rounded to nearest: floats with ties to even, the whole numbers of q8_0 with
/// ties away from 0, at the scale max |x| / 127 of their block (ggml's quantize_row_q8_0_ref). Little endian.
/// Returns the place of an element that the type has no number for, if there is one: what is finite and would be
/// infinite in float16 or bfloat16, for q8_0 what is not finite or beyond 65504 * 127 too.
std::optional<std::size_t> encode(WeightType type, std::span<const float> values, std::vector<std::byte>& bytes);

}  // namespace dekoder
