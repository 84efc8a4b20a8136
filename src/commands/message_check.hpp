// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "commands/finding.hpp"
#include "parallel/communicator.hpp"

namespace dekoder {

/// On all of several ranks, each of which sends to the next and gets from the one before, in host memory: whether
/// messages arrive as they were sent; on rank 0 how long a short one takes and how fast long ones are.
Finding check_messages(const Communicator& ranks);

}  // namespace dekoder
