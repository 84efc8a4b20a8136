// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "config/run_config.hpp"

namespace dekoder {

/// One kind of memory that a run takes.
struct MemoryTerm {
  std::string name;
  std::size_t bytes = 0;
};

/// Everything that `dekoder train` takes from Kokkos with this configuration (vocabulary set), to the byte but for
/// two terms that are upper bounds: attention maps, where a text is taken to have a token per byte and every buffer
/// is rounded up to whole words of 8 bytes, and the scratch memory of `threads` threads, of which Kokkos keeps
/// less. Of several ranks it is the most that one takes. Allocates nothing. Throws ConfigError where there are more
/// ranks than micro-batches.
std::vector<MemoryTerm> training_memory(const RunConfig& config, int threads, int ranks = 1);

std::uint64_t bytes_of(const std::vector<MemoryTerm>& terms);

/// The terms of training_memory, their sum and the size of a checkpoint as lines of text.
std::string training_memory_text(const RunConfig& config, const std::vector<MemoryTerm>& terms, int ranks);

/// Throws ConfigError where there are more ranks than micro-batches of a step: a rank computes whole ones.
void require_work_for_all(const RunConfig& config, int ranks);

}  // namespace dekoder
