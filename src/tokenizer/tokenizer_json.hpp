// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/byte_pair_tokenizer.hpp"

namespace dekoder {

/// Reads a tokenizer.json of Hugging Face's `tokenizers`: model BPE, pre-tokenizer ByteLevel with the split pattern
/// of GPT-2, of cl100k and Llama 3 or of Qwen 2, no normalizer or NFC. What stands before or after a text there
/// (post_processor) is no part of it here. Throws DataError, beginning with `where`, for what is damaged and, by
/// name, for what is of another kind.
BytePairTokenizer read_tokenizer_json(std::string_view text, std::string_view where);

/// A list of merges, each "left right" in GPT-2's alphabet of bytes; views of its file.
struct MergeList {
  std::vector<std::pair<std::string_view, std::string_view>> merges;
  MergePlaces places;
};

/// GPT-2's ids by the texts of their tokens (encoder.json, vocab.json), with its merges. Every token of several
/// bytes must be made by one, but for marks such as <|endoftext|>. Throws DataError, beginning with the name of the
/// file that is at fault.
BytePairTokenizer read_gpt2_vocabulary(std::string_view vocabulary, const MergeList& merges,
                                       std::string_view where);

/// The tokenizer as `tokenizers` reads it; equal for equal ones.
std::string write_tokenizer_json(const BytePairTokenizer& tokenizer);

}  // namespace dekoder
