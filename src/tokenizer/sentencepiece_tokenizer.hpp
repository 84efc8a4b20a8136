// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/token.hpp"

namespace dekoder {

/// A model of SentencePiece (Kudo and Richardson 2018), unigram or BPE: what a .model file holds, encoded by that
/// library. It brings text to a form of its own first, as the model says (characters replaced, blanks that run
/// together), so that decoding gives that form. A value that is cheap to copy; threads may share it.
class SentencePieceTokenizer {
 public:
  /// `model`: the bytes of a .model file. Throws DataError, beginning with `where`, for those that are none.
  SentencePieceTokenizer(std::string model, std::string_view where);

  const std::string& model() const;
  int size() const;
  /// Tokens of one text. The texts of <s> and its like are text like any other. Throws DataError, beginning with
  /// `where`, for one of more than `most_text` bytes.
  std::vector<Token> encode(std::string_view text, std::string_view where) const;
  static constexpr std::size_t most_text = 16777216;
  /// The bytes that a token stands for: none for a special one, one byte for <0xNN>, and what the model has for
  /// the unknown one (" ⁇ ").
  const std::string& text(Token token) const;
  /// The piece as the model has it: `▁the`, `<0x0A>`, `</s>`.
  const std::string& name(Token token) const;
  /// Whether encode() adds a space in front of each text (behind it, where the model puts blanks at the ends of
  /// words), which stands for no byte of it: the texts of its tokens have that one more.
  bool adds_space() const;
  /// The special token that ends a text, or -1.
  Token end_of_text() const;
  /// The token of characters that the model does not know; no text has it where it falls back to bytes.
  Token unknown() const;
  /// A mark such as <s> and </s>, which texts themselves do not have.
  bool is_special(Token token) const;

  bool operator==(const SentencePieceTokenizer& other) const { return model() == other.model(); }

 private:
  struct Model;
  std::shared_ptr<const Model> model_;
};

}  // namespace dekoder
