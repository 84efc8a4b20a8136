// SPDX-License-Identifier: Apache-2.0
// Numbers of CUDA's types in host memory: fp64, fp32 and bf16, which is the upper half of an fp32.
#pragma once

#include <library_types.h>

#include <bit>
#include <cstdint>

/// To nearest, ties to even, with `bits` bits of mantissa behind the point; for finite numbers.
inline float round_mantissa(float x, int bits) {
  const int dropped = 23 - bits;
  std::uint32_t pattern = std::bit_cast<std::uint32_t>(x);
  pattern += (std::uint32_t{1} << (dropped - 1)) - 1 + (pattern >> dropped & 1);
  return std::bit_cast<float>(pattern >> dropped << dropped);
}
inline double round_to(cudaDataType_t type, double x) {
  return type == CUDA_R_64F ? x : type == CUDA_R_16BF ? round_mantissa(float(x), 7) : float(x);
}

inline std::size_t element_bytes(cudaDataType_t type) {
  return type == CUDA_R_64F ? 8 : type == CUDA_R_16BF ? 2 : 4;
}
inline double load_element(cudaDataType_t type, const void* data, std::int64_t i) {
  if (type == CUDA_R_16BF)
    return std::bit_cast<float>(std::uint32_t{static_cast<const std::uint16_t*>(data)[i]} << 16);
  if (type == CUDA_R_64F) return static_cast<const double*>(data)[i];
  return static_cast<const float*>(data)[i];
}
inline void store_element(cudaDataType_t type, void* data, std::int64_t i, double x) {
  if (type == CUDA_R_16BF)
    static_cast<std::uint16_t*>(data)[i] =
        std::uint16_t(std::bit_cast<std::uint32_t>(float(round_to(type, x))) >> 16);
  else if (type == CUDA_R_64F)
    static_cast<double*>(data)[i] = x;
  else
    static_cast<float*>(data)[i] = float(x);
}
