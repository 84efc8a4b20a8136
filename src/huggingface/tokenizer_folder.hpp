// SPDX-License-Identifier: Apache-2.0
// Tokenizers in the folder of a model of transformers.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.hpp"

namespace dekoder {

struct NamedText {
  std::string name, text;
};

/// The byte tokenizer as byte pairs: a text of a byte for each token, and nothing that merges them.
BytePairTokenizer byte_rules();

/// tokenizer.json and tokenizer_config.json, which AutoTokenizer reads: of bytes as byte pairs without merges, of
/// characters as words of one character. Of SentencePiece its model alone, tokenizer.model.
std::vector<NamedText> tokenizer_files(const Tokenizer& tokenizer, int context);

/// The tokenizer of a folder: tokenizer.json, else GPT-2's vocab.json and merges.txt, or tokenizer.model. Throws
/// DataError where there is none that is known here.
Tokenizer read_tokenizer_folder(const std::filesystem::path& folder);

}  // namespace dekoder
