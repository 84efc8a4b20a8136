// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/token.hpp"

namespace dekoder {

/// Two neighbouring tokens that become one.
struct BytePair {
  Token left, right;
  bool operator==(const BytePair&) const = default;
};

/// Where merges stand, for messages.
struct MergePlaces {
  std::string_view file;
  std::vector<std::size_t> lines;  ///< by rank, from 1; empty where the file has no lines for them

  std::string place(std::size_t rank) const;    ///< "merges.txt:12: the merge", "tokenizer.json: merge 11"
  std::string mention(std::size_t rank) const;  ///< "that in line 12", "merge 11"
};

/// Byte-pair encoding over bytes (Sennrich, Haddow, Birch 2016, section 3.2; over bytes: Radford et al. 2019,
/// section 2.2): of all neighbours in a piece those merge first whose pair comes first in the list, from the left.
class BytePairs {
 public:
  /// `texts`: the bytes of each token; `merges`: pairs by rank, whose joined bytes are a token's. `whole_pieces`: a
  /// piece that is a token needs no merges (tiktoken; `ignore_merges` of tokenizer.json). Tokens of `unused`
  /// (special ones) are no result of this. Throws DataError, beginning with `where`, for a byte without a token, a
  /// text twice, a pair twice, and one whose joined bytes no token has; these two with `places`, where merges are
  /// of another file or have lines.
  BytePairs(std::vector<std::string> texts, std::vector<BytePair> merges, bool whole_pieces,
            std::span<const Token> unused, std::string_view where, const MergePlaces* places = nullptr);

  int size() const { return static_cast<int>(texts_.size()); }
  const std::string& text(Token token) const { return texts_[static_cast<std::size_t>(token)]; }
  const std::vector<BytePair>& merges() const { return merges_; }
  bool whole_pieces() const { return whole_pieces_; }

  /// Appends the tokens of a piece. Time: n^2 of its bytes where they are few, else n log n.
  void encode(std::string_view piece, std::vector<Token>& tokens) const;

  bool operator==(const BytePairs& other) const {
    return texts_ == other.texts_ && merges_ == other.merges_ && whole_pieces_ == other.whole_pieces_;
  }

 private:
  struct Merged {
    std::uint32_t rank;
    Token token;
  };
  static constexpr std::uint32_t none = 0xFFFFFFFF;  ///< a rank that no pair has

  Merged merged(Token left, Token right) const;
  void encode_short(std::string_view piece, std::vector<Token>& tokens) const;
  void encode_long(std::string_view piece, std::vector<Token>& tokens) const;
  /// The token of these bytes, or -1.
  Token find(std::string_view text) const;

  std::vector<std::string> texts_;
  std::vector<BytePair> merges_;
  bool whole_pieces_;
  std::array<Token, 256> of_byte_{};
  // Open addressing; a power of two, at most half full.
  std::vector<std::uint64_t> pair_keys_;
  std::vector<Merged> pair_values_;
  std::vector<Token> text_table_;
};

}  // namespace dekoder
