// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace dekoder {

/// A place where a test can let the process die. The environment variable DEKODER_FAULT=<name> or <name>@<n> raises
/// SIGKILL when the point <name> is passed for the n-th time (default: the first) in this process, and
/// <name>@<n>!TERM raises SIGTERM. Names: evaluation:batch, sampling:token,
/// checkpoint:create, checkpoint:mid_write, checkpoint:before_fsync, checkpoint:before_rename,
/// checkpoint:after_rename, attention:mid_write, attention:before_rename, attention:after_rename.
void fault_point(std::string_view name);

}  // namespace dekoder
