// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/byte_pairs.hpp"
#include "tokenizer/split_pattern.hpp"

namespace dekoder {

/// A piece of text and how often it stands in the texts.
struct PieceCount {
  std::string piece;
  std::uint64_t count;
};

/// Counts the pieces of texts. One thread at a time; several threads count into one each, which are merged then.
class PieceCounter {
 public:
  /// Every text is cut by itself: no piece reaches from one into the next (see last_safe_cut).
  void add(SplitPattern pattern, std::string_view text);
  void add(std::string_view piece, std::uint64_t count);
  void merge(const PieceCounter& other);

  std::size_t distinct() const { return pieces_.size(); }
  /// In no order.
  std::vector<PieceCount> result() const;

 private:
  struct Counted {
    std::string_view piece;  ///< in blocks_
    std::uint64_t count;
  };
  struct Slot {
    std::uint32_t hash;
    std::uint32_t place;  ///< in pieces_, from 1; 0: empty
  };

  void add(std::string_view piece, std::uint32_t hash, std::uint64_t count);
  void grow_table();
  std::string_view keep(std::string_view piece);

  std::vector<Counted> pieces_;
  std::vector<Slot> table_;  ///< open addressing; a power of two, at most half full
  std::vector<std::unique_ptr<char[]>> blocks_;
  std::span<char> free_;  ///< of the newest block
};

/// The merges of byte-pair encoding in their order (Sennrich, Haddow, Birch 2016, algorithm 1, over bytes): at most
/// `merges`, fewer where no pair stands twice. Tokens 0 to 255 are the bytes in the order of byte_alphabet(), merge
/// i makes token 256 + i. A pair counts wherever it stands, overlapping itself too (twice in "aaa"); of equally
/// frequent pairs the one with the smaller left token comes first, then the smaller right one. So the merges are
/// those of BpeTrainer of Hugging Face's `tokenizers` with ByteLevel's alphabet, min_frequency = 2 and no special
/// tokens. The order of `pieces` changes nothing, nor do pieces given in parts.
///
/// The bytes of all tokens differ: merges within a stretch of bytes do not depend on what stands around it as long
/// as none reaches across its ends, so a stretch whose ends are ends of tokens is always cut the same way, and one
/// that has become one token once is never two tokens again. For the same reason a merged pair never comes back.
///
/// One thread: seconds where there are millions of distinct pieces. Time is that of the places where pairs are
/// merged or counted again, however long a piece is. Memory: 16 bytes for each byte of `pieces`. Throws DataError
/// where these have 4 GiB or more.
std::vector<BytePair> train_byte_pairs(std::span<const PieceCount> pieces, int merges);

}  // namespace dekoder
