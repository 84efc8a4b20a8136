// SPDX-License-Identifier: Apache-2.0
#include "io/files/xxh64.hpp"

#include <bit>
#include <cstring>

namespace dekoder {

static_assert(std::endian::native == std::endian::little, "lanes are read as little-endian words");

namespace {

constexpr std::uint64_t p1 = 0x9E3779B185EBCA87, p2 = 0xC2B2AE3D27D4EB4F, p3 = 0x165667B19E3779F9,
                        p4 = 0x85EBCA77C2B2AE63, p5 = 0x27D4EB2F165667C5;

template <class Word>
std::uint64_t word_at(std::span<const std::byte> bytes) {
  Word word;
  std::memcpy(&word, bytes.data(), sizeof(word));
  return word;
}

std::uint64_t mixed(std::uint64_t accumulator, std::uint64_t lane) {
  return std::rotl(accumulator + lane * p2, 31) * p1;
}

}  // namespace

void Xxh64::update(std::span<const std::byte> bytes) {
  auto lanes = lanes_;  // a local copy stays in registers
  blocks_.update(bytes, [&lanes](std::span<const std::byte> stripe) {
    for (std::size_t i = 0; i < 4; ++i) lanes[i] = mixed(lanes[i], word_at<std::uint64_t>(stripe.subspan(8 * i)));
  });
  lanes_ = lanes;
}

std::uint64_t Xxh64::digest() const {
  std::uint64_t hash = p5;
  if (blocks_.total_bytes() >= 32) {
    hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
    for (const std::uint64_t lane : lanes_) hash = (hash ^ mixed(0, lane)) * p1 + p4;
  }
  hash += blocks_.total_bytes();
  std::span<const std::byte> rest = blocks_.rest();
  for (; rest.size() >= 8; rest = rest.subspan(8))
    hash = std::rotl(hash ^ mixed(0, word_at<std::uint64_t>(rest)), 27) * p1 + p4;
  for (; rest.size() >= 4; rest = rest.subspan(4))
    hash = std::rotl(hash ^ (word_at<std::uint32_t>(rest) * p1), 23) * p2 + p3;
  for (; !rest.empty(); rest = rest.subspan(1))
    hash = std::rotl(hash ^ (std::to_integer<std::uint64_t>(rest[0]) * p5), 11) * p1;
  hash = (hash ^ hash >> 33) * p2;
  hash = (hash ^ hash >> 29) * p3;
  return hash ^ hash >> 32;
}

}  // namespace dekoder
