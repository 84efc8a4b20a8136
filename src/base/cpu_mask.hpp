// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sched.h>

#include <array>

namespace dekoder {

/// CPUs in Linux' sense (hardware threads), by number: those that a thread may run on. Has room for every kernel's.
class CpuMask {
 public:
  /// Empty where the system does not tell.
  static CpuMask of_this_thread();
  /// Of the mask `set` of `bytes` bytes, as the system calls take it.
  CpuMask(const cpu_set_t* set, std::size_t bytes);
  CpuMask() = default;

  /// Lets the calling thread run on these CPUs alone. Without effect where the mask is empty or the system refuses:
  /// the thread stays where it may run.
  void give_to_this_thread() const;

  int cpus() const;
  /// Cores that the CPUs belong to: hardware threads of one core count once.
  int cores() const;

  const cpu_set_t* set() const { return reinterpret_cast<const cpu_set_t*>(words_.data()); }
  std::size_t bytes() const { return sizeof(words_); }

 private:
  std::array<unsigned long, 128> words_{};  // 8192 CPUs, the most that Linux has room for
};

/// Cores of this machine that are switched on, at least 1.
int online_cores();

/// The CPUs that this process was given, as they were before OpenMP bound a thread to a core; that of the calling
/// thread until set_process_cpus tells, once and before other threads ask.
CpuMask process_cpus();
void set_process_cpus(const CpuMask& cpus);

}  // namespace dekoder
