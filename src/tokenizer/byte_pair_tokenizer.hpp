// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/byte_pairs.hpp"
#include "tokenizer/split_pattern.hpp"

namespace dekoder {

/// A token that stands for a text of its own, not for what merges make of it.
struct AddedToken {
  Token token;
  std::string text;
  bool special;  ///< a mark such as the end of a text, which texts themselves do not have
  /// Looked for after the others, in what these leave over, and in Unicode's form NFC where the tokenizer composes.
  bool normalized = false;
  bool operator==(const AddedToken&) const = default;
};

inline constexpr const char* end_of_text_name = "<|endoftext|>";  ///< GPT-2's

/// Whether the texts of special tokens stand for these, or are text like any other.
enum class SpecialTokens { recognised, as_text };

/// Byte-level byte-pair encoding as a tokenizer.json of type BPE describes it.
class BytePairTokenizer {
 public:
  /// `added` by token; each of its texts is that of its token in `pairs`. `composes`: text is brought to Unicode's
  /// form NFC first (Qwen 2), so that decoding gives that form. Throws DataError, beginning with `where`, for a
  /// text of an added token that is empty, there twice, or one that last_safe_cut would cut.
  BytePairTokenizer(BytePairs pairs, SplitPattern pattern, std::vector<AddedToken> added, bool composes,
                    std::string_view where);

  const BytePairs& pairs() const { return pairs_; }
  SplitPattern pattern() const { return pattern_; }
  const std::vector<AddedToken>& added() const { return added_; }
  bool composes() const { return composes_; }
  /// The special token that ends a text, or -1.
  Token end_of_text() const { return end_of_text_; }
  bool is_special(Token token) const;

  bool operator==(const BytePairTokenizer& other) const {
    return pairs_ == other.pairs_ && pattern_ == other.pattern_ && added_ == other.added_ &&
           composes_ == other.composes_;
  }

 private:
  BytePairs pairs_;
  SplitPattern pattern_;
  std::vector<AddedToken> added_;
  bool composes_;
  Token end_of_text_ = -1;
};

/// Encodes texts, one thread; keeps the tokens of the pieces it met last, as words repeat.
class BytePairEncoder {
 public:
  /// Keeps a reference to `tokenizer`.
  explicit BytePairEncoder(const BytePairTokenizer& tokenizer);
  /// Appends the tokens of a text, any bytes.
  void encode(std::string_view text, SpecialTokens special, std::vector<Token>& tokens);

 private:
  /// A piece and its tokens, if they are few; one cache line.
  struct alignas(64) Known {
    unsigned char bytes = 0, count = 0;
    char piece[30];
    Token tokens[8];
  };
  /// Added tokens as they are looked for.
  struct Marks {
    struct Mark {
      std::string text;
      Token token;
      bool special;
    };
    std::vector<Mark> longest_first;
    bool first_bytes[256] = {};
    /// The first one that is recognised in `text`, and its place; null and npos where there is none.
    std::pair<const Mark*, std::size_t> find(std::string_view text, SpecialTokens special) const;
  };
  /// Appends the tokens of `marks` in a text, and what encode_rest makes of all between them.
  template <class EncodeRest>
  static void encode_around(const Marks& marks, std::string_view text, SpecialTokens special,
                            std::vector<Token>& tokens, EncodeRest encode_rest);
  void encode_pieces(std::string_view text, std::vector<Token>& tokens);

  const BytePairTokenizer& tokenizer_;
  std::vector<Known> known_;
  Marks as_they_are_, normalized_;
};

}  // namespace dekoder
