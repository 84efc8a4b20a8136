// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "data/corpus.hpp"
#include "tokenizer/tokenizer.hpp"

namespace dekoder {

/// Where a text may be cut so that its parts have the tokens of the whole; for SentencePiece behind a line, where
/// each part gets the space in front that the model puts before texts. Keeps a reference to `tokenizer`.
TextCut text_cut(const Tokenizer& tokenizer);

/// Encodes batches, one thread: sets their tokens and TextPart::tokens_end. The texts of special tokens are text
/// like any other. Throws DataError for a character that the tokenizer lacks (the text changes while it is read)
/// and the first byte that is no UTF-8, where the tokenizer is of characters. Keeps references.
std::function<void(TextBatch&)> text_encoder(const Tokenizer& tokenizer, const Corpus& corpus);

/// Calls visit(code point) for the characters of a part; throws DataError naming offset, line and column in the
/// file of the first byte that is no UTF-8.
void for_each_character(const TextBatch& batch, const TextPart& part, const Corpus& corpus,
                        const std::function<void(char32_t)>& visit);

}  // namespace dekoder
