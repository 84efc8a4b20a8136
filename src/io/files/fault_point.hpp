// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace dekoder {

/// A place where a test can let the process die. The environment variable DEKODER_FAULT=<name> or <name>@<n> raises
/// SIGKILL when the point <name> is passed for the n-th time (default: the first) in this process, and
/// <name>@<n>!TERM or !STOP raises SIGTERM or SIGSTOP; <name>@<n>!HOLD stays there for three seconds and
/// <name>@<n>!HANG for ever; with <name>@<n>!SPOIL it returns true, and the caller spoils what it has computed.
/// Up to eight of them may stand side by side, with commas between.
/// Names: selftest:gradient, selftest:loss, selftest:bits, selftest:ranks, selftest:messages, selftest:files,
/// train:step, train:gradients, train:updated, evaluation:batch, sampling:token, checkpoint:create,
/// checkpoint:mid_write, attention:mid_write, lock:claimed, fresh:moved, fresh:gathered, fresh:done,
/// fresh:moved_back, and for each kind of PendingFile (checkpoint, attention, black_box, tokens, shard,
/// safetensors, file) <kind>:before_fsync, <kind>:before_rename, <kind>:after_rename.
bool fault_point(std::string_view name);

}  // namespace dekoder
