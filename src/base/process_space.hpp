// SPDX-License-Identifier: Apache-2.0
// Where process numbers mean something: within one boot of a machine and one PID namespace.
#pragma once

#include <string>

namespace dekoder {

/// This machine's kernel since it was started: /proc/sys/kernel/random/boot_id. "-" where the system does not tell.
std::string boot_id();

/// Inode of this process's PID namespace (pid_namespaces(7)). "-" where the system does not tell.
std::string pid_namespace();

}  // namespace dekoder
