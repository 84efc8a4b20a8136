// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace dekoder {

/// Cuts bytes that come piece by piece into blocks of N, as digests want them.
template <std::size_t N>
class BlockBuffer {
 public:
  /// Calls take(block) for each block, a span of N bytes, that is whole with these bytes.
  template <class Take>
  void update(std::span<const std::byte> bytes, Take take) {
    total_bytes_ += bytes.size();
    if (rest_bytes_ > 0) {
      const std::size_t taken = std::min(bytes.size(), N - rest_bytes_);
      std::copy_n(bytes.begin(), taken, rest_.begin() + static_cast<std::ptrdiff_t>(rest_bytes_));
      rest_bytes_ += taken;
      bytes = bytes.subspan(taken);
      if (rest_bytes_ < N) return;
      take(std::span<const std::byte, N>(rest_));
    }
    for (; bytes.size() >= N; bytes = bytes.subspan(N)) take(bytes.template first<N>());
    std::copy(bytes.begin(), bytes.end(), rest_.begin());
    rest_bytes_ = bytes.size();
  }

  /// Bytes after the last whole block: fewer than N.
  std::span<const std::byte> rest() const { return std::span(rest_).first(rest_bytes_); }
  std::uint64_t total_bytes() const { return total_bytes_; }

 private:
  std::array<std::byte, N> rest_{};
  std::size_t rest_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace dekoder
