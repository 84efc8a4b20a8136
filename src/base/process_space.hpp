// SPDX-License-Identifier: Apache-2.0
// The machine that this process sees; its numbers of processes mean something within one boot and one PID
// namespace.
#pragma once

#include <string>

namespace dekoder {

/// The name of this machine, or of the UTS namespace; empty where the system does not tell.
std::string host_name();

/// This machine's kernel since it was started: /proc/sys/kernel/random/boot_id. "-" where the system does not tell.
std::string boot_id();

/// Inode of this process's PID namespace (pid_namespaces(7)). "-" where the system does not tell.
std::string pid_namespace();

/// Fields 3 and 22 of /proc/<process>/stat (proc(5)); "-" where there is no such process.
struct ProcessStat {
  std::string state = "-", start = "-";
};
/// `process`: a number or "self".
ProcessStat process_stat(const std::string& process);

/// Seconds since this process was started; 0 where the system does not tell.
double process_age();

}  // namespace dekoder
