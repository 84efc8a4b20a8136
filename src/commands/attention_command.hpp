// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "config/command.hpp"

namespace dekoder {

/// `dekoder attention`: writes the maps of one text under the parameters of a checkpoint to a file of their own,
/// and returns what is to be printed: the statistics of every head.
std::string record_attention(const Command& command);

}  // namespace dekoder
