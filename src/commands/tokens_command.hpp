// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

#include "config/command.hpp"
#include "data/token_dataset.hpp"

namespace dekoder {

/// What a token file holds, for `prepare` and `tokens`: sizes, documents and how long they are.
std::string token_file_text(const std::filesystem::path& file, const TokenFileHeader& header);

/// `dekoder tokens`: token_file_text and the first tokens with their texts; writes shards and the tokenizer.json
/// that are asked for. Throws as TokenDataset and export_shards.
std::string show_tokens(const Command& command);

}  // namespace dekoder
