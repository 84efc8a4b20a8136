// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace dekoder {

/// SHA-256 of bytes that come piece by piece (FIPS 180-4, section 6.2).
class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  /// The digest of all bytes so far as 64 lower-case hexadecimal digits. Nothing can be added afterwards.
  std::string finish();

 private:
  void compress(std::span<const std::byte, 64> block);

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> rest_{};  // bytes after the last whole block
  std::size_t rest_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

/// The digest of one piece of memory.
std::string sha256(std::span<const std::byte> bytes);

}  // namespace dekoder
