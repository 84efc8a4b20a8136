// SPDX-License-Identifier: Apache-2.0
// A Kokkos Tools library that writes what it is told into the file DEKODER_RECORD, one line per event, fields
// separated by tabs:
//   begin ID NAME | end ID | push NAME | pop | allocate ADDRESS BYTES LABEL | free ADDRESS BYTES LABEL
#include <impl/Kokkos_Profiling_C_Interface.h>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace {

std::FILE* file = nullptr;
std::mutex mutex;
std::uint64_t kernels = 0;

template <class... Values>
void write(const char* format, Values... values) {
  const std::lock_guard lock(mutex);
  if (file != nullptr) std::fprintf(file, format, values...);
}

void begin(const char* name, std::uint64_t* id) {
  {
    const std::lock_guard lock(mutex);
    *id = kernels++;
  }
  write("begin\t%" PRIu64 "\t%s\n", *id, name);
}
void end(std::uint64_t id) {
  write("end\t%" PRIu64 "\n", id);
}

}  // namespace

extern "C" {

void kokkosp_init_library(const int, const std::uint64_t, const std::uint32_t,
                          Kokkos_Profiling_KokkosPDeviceInfo*) {
  const char* path = std::getenv("DEKODER_RECORD");
  file = path != nullptr ? std::fopen(path, "w") : nullptr;
  if (file == nullptr) std::perror("record_tool: DEKODER_RECORD"), std::exit(1);
}
void kokkosp_finalize_library() {
  std::fclose(file);
  file = nullptr;
}
void kokkosp_begin_parallel_for(const char* name, const std::uint32_t, std::uint64_t* id) {
  begin(name, id);
}
void kokkosp_end_parallel_for(const std::uint64_t id) {
  end(id);
}
void kokkosp_begin_parallel_reduce(const char* name, const std::uint32_t, std::uint64_t* id) {
  begin(name, id);
}
void kokkosp_end_parallel_reduce(const std::uint64_t id) {
  end(id);
}
void kokkosp_begin_parallel_scan(const char* name, const std::uint32_t, std::uint64_t* id) {
  begin(name, id);
}
void kokkosp_end_parallel_scan(const std::uint64_t id) {
  end(id);
}
void kokkosp_push_profile_region(const char* name) {
  write("push\t%s\n", name);
}
void kokkosp_pop_profile_region() {
  write("pop\n");
}
void kokkosp_allocate_data(const Kokkos_Profiling_SpaceHandle, const char* label, const void* address,
                           const std::uint64_t bytes) {
  write("allocate\t%p\t%" PRIu64 "\t%s\n", address, bytes, label);
}
void kokkosp_deallocate_data(const Kokkos_Profiling_SpaceHandle, const char* label, const void* address,
                             const std::uint64_t bytes) {
  write("free\t%p\t%" PRIu64 "\t%s\n", address, bytes, label);
}
}
