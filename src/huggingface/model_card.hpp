// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "config/run_config.hpp"
#include "io/run/checkpoint.hpp"
#include "tokenizer/tokenizer.hpp"

namespace dekoder {

/// README.md of an exported model: how to load it, its shape, and the numbers of its run at this step.
/// `has_tokenizer`: the folder has one that AutoTokenizer reads.
std::string model_card(const std::string& name, const CheckpointInfo& info, const RunConfig& config,
                       std::size_t parameters, const Tokenizer& tokenizer, bool has_tokenizer);

}  // namespace dekoder
