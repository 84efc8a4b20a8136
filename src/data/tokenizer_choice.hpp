// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "data/corpus.hpp"
#include "tokenizer/tokenizer.hpp"

namespace dekoder {

/// A tokenizer as a user asks for it.
struct TokenizerWish {
  std::string name = "byte";  ///< byte, char, bpe, or the path of a file
  std::string split;          ///< of bpe and rank files of tiktoken: gpt2 (also where empty), cl100k or qwen2
  int vocabulary = 0;         ///< of bpe: tokens, at least 258
};

struct ChosenTokenizer {
  Tokenizer tokenizer;
  std::uint64_t tokens = 0;  ///< of the corpus, where the choice took a reading of it; else 0
};

/// The tokenizer that is meant, for this corpus. That of characters and bpe read the corpus for their vocabulary,
/// which must be repeatable then: ConfigError. bpe has fewer tokens where the texts have no more pairs. A file is a
/// tokenizer.json, a model of SentencePiece, a list of merges (ids: those of encoder.json or vocab.json in its
/// folder, if there is one) or a rank file of tiktoken, told apart by their first bytes, and where these are of
/// none by the ending of the name; throws DataError for one that is none or damaged, ConfigError for a `split` that
/// says nothing about it.
ChosenTokenizer choose_tokenizer(const TokenizerWish& wish, const Corpus& corpus, int threads);

/// The same where there are tokens already and no texts: byte or a file, ConfigError for char and bpe.
Tokenizer choose_tokenizer(const TokenizerWish& wish);

}  // namespace dekoder
