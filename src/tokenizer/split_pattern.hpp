// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

namespace dekoder {

/// How text is cut into pieces, which byte-pair encoding never merges across. The regular expressions are those
/// that the tokenizers were published with; each is a hand-written scanner here.
enum class SplitPattern {
  gpt2,    ///< Radford et al. 2019: words with their space, numbers, punctuation, white space
  cl100k,  ///< GPT-4's and Llama 3's: numbers of three digits, contractions in any case, line ends by themselves
  qwen2    ///< as cl100k with single digits
};

inline constexpr std::array split_patterns{SplitPattern::gpt2, SplitPattern::cl100k, SplitPattern::qwen2};

/// "gpt2", "cl100k", "qwen2".
const char* split_pattern_name(SplitPattern pattern);
/// As tokenizer.json has it in a Split pre-tokenizer.
const char* split_pattern_regex(SplitPattern pattern);

/// Bytes of the piece that begins at the front of `text`, which is not empty.
std::size_t front_piece(SplitPattern pattern, std::string_view text);

/// Bytes up to the last place in `text` where every pattern begins a new piece, whatever stands before and after it
/// (an ASCII letter, then a line feed); 0 where there is none. Texts cut there are encoded as the whole is.
std::size_t last_safe_cut(std::string_view text);

}  // namespace dekoder
