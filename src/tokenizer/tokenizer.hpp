// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/token.hpp"
#include "base/utf8.hpp"
#include "tokenizer/byte_pair_tokenizer.hpp"
#include "tokenizer/sentencepiece_tokenizer.hpp"

namespace dekoder {

enum class TokenizerKind {
  bytes,         ///< "byte": token = byte, 256 of them, any text
  characters,    ///< "char": token = place of the code point in a sorted vocabulary
  byte_pairs,    ///< "bpe": pieces of words, by a tokenizer.json
  sentencepiece  ///< "sentencepiece": pieces of words, by a .model of SentencePiece
};

/// "byte", "char", "bpe" or "sentencepiece".
const char* tokenizer_kind_name(TokenizerKind kind);

/// Text to tokens and back.
class Tokenizer {
 public:
  static Tokenizer of_bytes();
  /// `code_points` in ascending order, each once, at least one; throws std::logic_error otherwise.
  static Tokenizer of_characters(std::vector<char32_t> code_points);
  static Tokenizer of_byte_pairs(BytePairTokenizer tokenizer);
  /// `model`: the bytes of a .model file. Throws DataError that begins with `where`.
  static Tokenizer of_sentencepiece(std::string model, std::string_view where);

  /// The form kept in token files and checkpoints: `byte`, `char U+000A U+0020 ...` in the order of the tokens, a
  /// tokenizer.json, or `sentencepiece ` and the model in base64.
  std::string to_text() const;
  /// The reverse of to_text; throws DataError that begins with `where`.
  static Tokenizer from_text(std::string_view text, std::string_view where);

  TokenizerKind kind() const { return kind_; }
  /// V, number of tokens.
  int vocabulary() const {
    return byte_pairs_                     ? byte_pairs_->pairs().size()
           : sentencepiece_                ? sentencepiece_->size()
           : kind_ == TokenizerKind::bytes ? 256
                                           : static_cast<int>(code_points_.size());
  }
  /// The rules of a `bpe` tokenizer; null for others.
  const BytePairTokenizer* byte_pairs() const { return byte_pairs_.get(); }
  /// The special token that ends a text, or -1.
  Token end_of_text() const {
    return byte_pairs_ ? byte_pairs_->end_of_text() : sentencepiece_ ? sentencepiece_->end_of_text() : -1;
  }
  /// The model of a `sentencepiece` tokenizer; null for others.
  const SentencePieceTokenizer* sentencepiece() const { return sentencepiece_ ? &*sentencepiece_ : nullptr; }

  /// Tokens of a text that a user gave as `where` ("--prompt"). Throws ConfigError naming it and every character
  /// that the vocabulary lacks, or the first byte that is not UTF-8. The texts of special tokens of a
  /// `bpe` tokenizer stand for these.
  std::vector<Token> encode(std::string_view text, std::string_view where = "text") const;
  /// The token of a code point of a `char` tokenizer, or -1.
  Token find(char32_t code_point) const { return code_point < tokens_.size() ? tokens_[code_point] : -1; }

  /// The text of all tokens; bytes that are no UTF-8 become U+FFFD. Throws std::out_of_range for a foreign token.
  std::string decode(std::span<const Token> tokens) const;
  /// Appends the bytes one token stands for, as they are.
  void append_bytes(std::string& text, Token token) const;
  /// What a list of tokens shows of one: its bytes, and of a mark that stands for none its name, `</s>`.
  std::string listed(Token token) const;
  /// Bytes of the source text that one token stands for; 0 for a special one. Those of a `sentencepiece` tokenizer
  /// together count the space that its encode may add (SentencePieceTokenizer::adds_space).
  std::size_t bytes_of(Token token) const;

  /// Whether the tokens of a text have its very bytes: not where BPE brings it to NFC, nor with SentencePiece,
  /// whose models may normalise it, lose what they do not know and add a space.
  bool keeps_bytes() const { return !sentencepiece_ && !(byte_pairs_ && byte_pairs_->composes()); }
  /// The token of what a `sentencepiece` model does not know and loses, or -1.
  Token unknown() const { return sentencepiece_ ? sentencepiece_->unknown() : -1; }

  bool operator==(const Tokenizer& other) const;

 private:
  Tokenizer() = default;

  TokenizerKind kind_ = TokenizerKind::bytes;
  std::vector<char32_t> code_points_;  ///< by token
  std::vector<Token> tokens_;          ///< by code point
  std::shared_ptr<const BytePairTokenizer> byte_pairs_;
  std::optional<SentencePieceTokenizer> sentencepiece_;
};

/// Turns tokens into text as they come: a character whose bytes are not all there yet is held back, bytes that are
/// no UTF-8 become U+FFFD. Pieces together are what Tokenizer::decode gives for all tokens.
class StreamDecoder {
 public:
  /// Keeps a reference to `tokenizer`.
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  /// The text that `token` completes; may be empty.
  std::string push(Token token);
  /// What is left at the end: empty, or U+FFFD for an incomplete character.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string held_back_;
};

}  // namespace dekoder
