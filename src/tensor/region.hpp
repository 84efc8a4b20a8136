// SPDX-License-Identifier: Apache-2.0
// What profilers see of a run through Kokkos Tools, beside the kernels that Kokkos launches itself, and the
// watchdog. Costs less than a microsecond where no tool is loaded.
#pragma once

#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <optional>
#include <string>

#include "base/activity.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// A stretch of the run under a name of src/README.md (forward, blocks.03, attention, ...) as long as the object
/// lives. Regions nest.
class Region {
 public:
  template <class Name>
  explicit Region(const Name& name) : note_(name) {
    if (Kokkos::Tools::profileLibraryLoaded()) seen_.emplace(name);
  }

 private:
  const RegionNote note_;
  std::optional<Kokkos::Profiling::ScopedRegion> seen_;
};

/// Work that a library does outside of Kokkos' kernels, shown to tools as one more kernel `label` of `exec`, so
/// that a kernel timer counts its time. No Kokkos kernel may be launched as long as the object lives: timers take
/// kernels to follow each other.
class LibraryKernel {
 public:
  LibraryKernel(const ExecSpace& exec, const char* label) {
    if (Kokkos::Tools::profileLibraryLoaded())
      Kokkos::Tools::beginParallelFor(label, Kokkos::Tools::Experimental::device_id(exec), &id_.emplace());
  }
  ~LibraryKernel() {
    if (id_) Kokkos::Tools::endParallelFor(*id_);
  }
  LibraryKernel(const LibraryKernel&) = delete;

 private:
  std::optional<std::uint64_t> id_;
};

}  // namespace dekoder
