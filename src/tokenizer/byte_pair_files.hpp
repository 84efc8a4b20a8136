// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>

#include "tokenizer/byte_pair_tokenizer.hpp"

namespace dekoder {

/// GPT-2's list of merges (vocab.bpe, merges.txt: "#version: ..." and a line "left right" for each), and its ids:
/// those of `vocabulary` (encoder.json, vocab.json), or where there is none bytes in the order of their alphabet,
/// merges in theirs, then <|endoftext|>. Throws DataError, beginning with the name of the file that is at fault,
/// and the line of a merge.
BytePairTokenizer read_merges(std::string_view merges, std::string_view merges_name,
                              std::optional<std::string_view> vocabulary = {},
                              std::string_view vocabulary_name = "");

/// A rank file of tiktoken: lines of a token's bytes in base64 and its rank, which is its id. <|endoftext|> comes
/// behind them, as in GPT-2. Throws DataError, beginning with `where`.
BytePairTokenizer read_tiktoken_ranks(std::string_view text, SplitPattern pattern, std::string_view where);

/// A tokenizer of these merges in GPT-2's order of ids: bytes, what merges make, <|endoftext|>.
BytePairTokenizer tokenizer_of_merges(std::vector<BytePair> merges, SplitPattern pattern, std::string_view where,
                                      const MergePlaces* places = nullptr);

}  // namespace dekoder
