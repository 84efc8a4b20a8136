// SPDX-License-Identifier: Apache-2.0
// Where only messages count: kernels/accumulate without its sums, and large buffers that are all the same few
// pages, so that hundreds of ranks with the buffers of a large model fit into one process.
#include <smpi/smpi.h>

#include <cstdlib>
#include <new>

#include "kernels/accumulate.hpp"

namespace dekoder {

void add(const ExecSpace&, ConstMasterTensor1 x, MasterTensor1 sum) {
  add_shapes.match(x, sum);
}
void move_add(const ExecSpace&, MasterTensor1 x, MasterTensor1 sum) {
  move_add_shapes.match(x, sum);
}
void move(const ExecSpace&, MasterTensor1 x, MasterTensor1 y) {
  move_shapes.match(x, y);
}
void clear(const ExecSpace&, MasterTensor1 x) {
  clear_shapes.match(x);
}

}  // namespace dekoder

// What Kokkos allocates with.
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  constexpr std::size_t large = std::size_t{1} << 20;
  const auto boundary = static_cast<std::size_t>(alignment);
  void* const memory = bytes >= large ? SMPI_SHARED_MALLOC(bytes)
                                      : std::aligned_alloc(boundary, (bytes + boundary - 1) / boundary * boundary);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory, std::align_val_t) noexcept {
  SMPI_SHARED_FREE(memory);  // or free(), where it is not shared
}
