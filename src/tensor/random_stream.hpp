// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

namespace dekoder {

/// Counter-based random numbers: Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as
/// 1, 2, 3", SC'11, section 3.3). A stream is a 64-bit key made from (seed, site, step, sample); the numbers are a
/// function of (key, index), so that there is no state to save and any thread, rank or restart draws the same ones.
class RandomStream {
 public:
  RandomStream() = default;

  /// `site` tells apart the places that draw (a tensor, a dropout layer); `sample` is the global sample index.
  KOKKOS_INLINE_FUNCTION RandomStream(std::uint64_t seed, std::uint64_t site, std::uint64_t step = 0,
                                      std::uint64_t sample = 0)
      : key_(mix(mix(mix(seed, site), step), sample)) {}

  /// The stream of another sample or row under the same key.
  KOKKOS_INLINE_FUNCTION RandomStream child(std::uint64_t sample) const {
    RandomStream stream;
    stream.key_ = mix(key_, sample);
    return stream;
  }

  /// 64 random bits at `index`.
  KOKKOS_INLINE_FUNCTION std::uint64_t bits64(std::uint64_t index) const { return mix(key_, index); }

  /// 32 random bits at `index`.
  KOKKOS_INLINE_FUNCTION std::uint32_t bits32(std::uint64_t index) const {
    return static_cast<std::uint32_t>(mix(key_, index));
  }

  /// The same at many indices high * 2^32 + low at once; Word is a vector of std::uint32_t.
  template <class Word>
  KOKKOS_FORCEINLINE_FUNCTION Word bits32(Word low, Word high) const {
    threefry(key_, low, high);
    return low;
  }

  /// Uniform in [0, 1) with 24 random bits.
  KOKKOS_INLINE_FUNCTION float uniform(std::uint64_t index) const {
    return static_cast<float>(bits32(index) >> 8) * 0x1p-24f;
  }

  /// Standard normal by Box and Muller (1958): one value per index.
  KOKKOS_INLINE_FUNCTION double normal(std::uint64_t index) const {
    const std::uint64_t bits = bits64(index);
    const double u = (static_cast<double>(bits >> 32) + 1.0) * 0x1p-32;  // (0, 1]
    const double v = static_cast<double>(bits & 0xffffffffu) * 0x1p-32;  // [0, 1)
    return Kokkos::sqrt(-2.0 * Kokkos::log(u)) * Kokkos::cos(6.283185307179586 * v);
  }

  /// Threefry-2x32-20 of `counter` under `key`.
  KOKKOS_INLINE_FUNCTION static std::uint64_t mix(std::uint64_t key, std::uint64_t counter) {
    std::uint32_t x0 = static_cast<std::uint32_t>(counter), x1 = static_cast<std::uint32_t>(counter >> 32);
    threefry(key, x0, x1);
    return static_cast<std::uint64_t>(x1) << 32 | x0;
  }

 private:
  /// Encrypts the counter x1 * 2^32 + x0 in place.
  template <class Word>
  KOKKOS_FORCEINLINE_FUNCTION static void threefry(std::uint64_t key, Word& x0, Word& x1) {
    const std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    const std::uint32_t k2 = 0x1BD11BDAu ^ k0 ^ k1;
    x0 += k0, x1 += k1;
    four_rounds<13, 15, 26, 6>(x0, x1);
    x0 += k1, x1 += k2 + 1;
    four_rounds<17, 29, 16, 24>(x0, x1);
    x0 += k2, x1 += k0 + 2;
    four_rounds<13, 15, 26, 6>(x0, x1);
    x0 += k0, x1 += k1 + 3;
    four_rounds<17, 29, 16, 24>(x0, x1);
    x0 += k1, x1 += k2 + 4;
    four_rounds<13, 15, 26, 6>(x0, x1);
    x0 += k2, x1 += k0 + 5;
  }
  template <std::uint32_t... rotations, class Word>
  KOKKOS_FORCEINLINE_FUNCTION static void four_rounds(Word& x0, Word& x1) {
    (round<rotations>(x0, x1), ...);
  }
  template <std::uint32_t rotation, class Word>
  KOKKOS_FORCEINLINE_FUNCTION static void round(Word& x0, Word& x1) {
    x0 += x1;
    x1 = (x1 << rotation | x1 >> (32 - rotation)) ^ x0;
  }

  std::uint64_t key_ = 0;
};

/// 64-bit FNV-1a hash of a name: the `site` of a named tensor (Fowler, Noll, Vo; RFC 9923).
constexpr std::uint64_t site_of(const char* name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (; *name != '\0'; ++name) hash = (hash ^ static_cast<unsigned char>(*name)) * 0x100000001b3u;
  return hash;
}

}  // namespace dekoder
