// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "io/hdf5/block_buffer.hpp"

namespace dekoder {

/// XXH64 with seed 0 (Y. Collet, "xxHash fast digest algorithm", specification 0.1.1, section XXH64) of bytes that
/// come piece by piece. Finds accidental damage at the speed of memory; it is no protection against forgery.
class Xxh64 {
 public:
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text))); }
  /// The digest of all bytes so far; more may follow.
  std::uint64_t digest() const;

 private:
  static constexpr std::uint64_t prime1 = 0x9E3779B185EBCA87, prime2 = 0xC2B2AE3D27D4EB4F;

  std::array<std::uint64_t, 4> lanes_ = {prime1 + prime2, prime2, 0, 0 - prime1};
  BlockBuffer<32> blocks_;
};

}  // namespace dekoder
