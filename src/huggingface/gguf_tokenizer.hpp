// SPDX-License-Identifier: Apache-2.0
// A tokenizer as llama.cpp reads it.
#pragma once

#include <string>

#include "io/gguf/gguf_writer.hpp"
#include "tokenizer/tokenizer.hpp"

namespace dekoder {

struct GgufTokenizer {
  GgufMetadata metadata;
  std::string warning;  ///< what texts do not become the same tokens there; empty: none
};

/// tokenizer.ggml.*, of a model of so many tokens: of byte pairs, and of bytes as such without merges, "gpt2"; of
/// SentencePiece "llama" or "t5". Of others "none", with a warning: the model then takes and gives tokens alone.
GgufTokenizer gguf_tokenizer(const Tokenizer& tokenizer, int vocabulary);

}  // namespace dekoder
