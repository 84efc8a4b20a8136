// SPDX-License-Identifier: Apache-2.0
#include "tensor/activation_arena.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <utility>

namespace dekoder {

namespace {
constexpr std::size_t alignment = 64;

/// Asks for 2 MiB pages where the memory is the host's: fewer misses in the address translation.
void advise_huge_pages(std::byte* begin, std::size_t bytes) {
  constexpr std::uintptr_t page = std::uintptr_t{2} << 20;
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  const std::uintptr_t first = (address + page - 1) / page * page, last = (address + bytes) / page * page;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}
}  // namespace

ActivationArena::ActivationArena(std::size_t bytes)
    : memory_(Kokkos::view_alloc(Kokkos::WithoutInitializing, "activations"), bytes) {
  if constexpr (device_is_host) advise_huge_pages(memory_.data(), bytes);
}

std::byte* ActivationArena::claim(ArenaEntry entry) {
  const std::size_t begin = used_, end = begin + (entry.bytes + alignment - 1) / alignment * alignment;
  const bool measuring = memory_.data() == nullptr;
  if (!measuring && end > memory_.size())
    throw std::logic_error(fmt::format("arena: {} needs {} bytes at {} of {}; the plan and the model differ",
                                       entry.name, entry.bytes, begin, memory_.size()));
  used_ = end;
  entries_.push_back(std::move(entry));
  return measuring ? nullptr : memory_.data() + begin;
}

}  // namespace dekoder
