// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/byte_pair_training.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>

#include "base/error.hpp"
#include "tokenizer/byte_alphabet.hpp"

namespace dekoder {

namespace {

constexpr std::size_t block_bytes = std::size_t{1} << 20;
constexpr std::uint64_t least_count = 2;  ///< of a pair that is merged
constexpr int byte_tokens = 256;          ///< tokens of one byte
constexpr Token none = -1;

/// A place in the slots that hold the tokens of all pieces.
using Place = std::uint32_t;

/// A pair that may be merged next.
struct Candidate {
  std::uint64_t count;  ///< at least its count now: no merge but the one that made it adds to it
  BytePair pair;
  std::span<Place> places;  ///< of its left token, ascending; the pair may be gone from some

  /// Whether `other` is merged before this.
  bool operator<(const Candidate& other) const {
    if (count != other.count) return count < other.count;
    if (pair.left != other.pair.left) return pair.left > other.pair.left;
    return pair.right > other.pair.right;
  }
};

/// Places by a key (a pair, or a neighbour's token), and how often the keys stand in the texts.
class PlacesByKey {
 public:
  /// Keys may be 0 to `keys` - 1.
  void allow_keys(std::size_t keys) { keys_.resize(keys); }
  void reserve(std::size_t places) { all_.reserve(places); }

  void add(std::uint32_t key, Place place, std::uint64_t count) {
    Key& of = keys_[key];
    if (of.places == 0) seen_.push_back(key);
    of.places++;
    of.count += count;
    all_.push_back({key, place});
  }

  /// Calls take(key, count, places) for each key that stands least_count times, and forgets all. Returns what the
  /// places lie in.
  template <class Take>
  std::unique_ptr<Place[]> collect(Take&& take) {
    std::size_t kept = 0;
    for (const std::uint32_t key : seen_)
      if (keys_[key].count >= least_count) kept += keys_[key].places;
    auto block = std::make_unique_for_overwrite<Place[]>(kept);
    Place* next = block.get();
    for (const std::uint32_t key : seen_) {
      Key& of = keys_[key];
      if (of.count < least_count) continue;
      of.next = next;
      take(key, of.count, std::span(next, of.places));
      next += of.places;
    }
    for (const auto& [key, place] : all_)
      if (Place*& to = keys_[key].next) *to++ = place;
    for (const std::uint32_t key : seen_) keys_[key] = {};
    seen_.clear();
    all_.clear();
    return block;
  }

 private:
  struct Key {
    std::uint64_t count = 0;
    Place* next = nullptr;  ///< where its next place goes
    std::uint32_t places = 0;
  };
  struct KeyPlace {
    std::uint32_t key;
    Place place;
  };
  std::vector<Key> keys_;
  std::vector<std::uint32_t> seen_;
  std::vector<KeyPlace> all_;
};

/// The pieces, cut into tokens, and the pairs in them. Pieces lie one after the other, by falling count, so that
/// the few different counts are known by place.
class PairMerger {
 public:
  explicit PairMerger(std::span<const PieceCount> pieces) : token_bytes_(byte_tokens, 1) {
    lay_out(pieces);
    find_pairs_of_bytes();
  }

  std::vector<BytePair> merge_most_frequent(int merges) {
    std::vector<BytePair> merged;
    while (static_cast<int>(merged.size()) < merges && !candidates_.empty()) {
      Candidate first = candidates_.top();
      candidates_.pop();
      recount(first);
      if (first.count < least_count) continue;
      if (!candidates_.empty() && first < candidates_.top()) {
        candidates_.push(first);
        continue;
      }
      merge(first);
      merged.push_back(first.pair);
    }
    return merged;
  }

 private:
  /// Counts of the pieces at places that ascend from call to call.
  class Counts {
   public:
    explicit Counts(const PairMerger& of) : of_(of), end_(of.count_ends_.begin()) {}
    std::uint64_t operator()(Place place) {
      if (place >= *end_) end_ = std::upper_bound(end_, of_.count_ends_.end(), place);
      return of_.counts_[static_cast<std::size_t>(end_ - of_.count_ends_.begin())];
    }

   private:
    const PairMerger& of_;
    std::vector<Place>::const_iterator end_;  ///< of the pieces of one count
  };

  void lay_out(std::span<const PieceCount> pieces) {
    std::vector<const PieceCount*> falling;
    std::uint64_t slots = 1;
    for (const PieceCount& piece : pieces) {
      if (piece.piece.size() < 2 || piece.count == 0) continue;
      falling.push_back(&piece);
      slots += piece.piece.size() + 1;
    }
    if (slots > std::numeric_limits<Place>::max())
      throw DataError(
          "training of byte pairs: the distinct pieces have {} bytes, expected less than 4 GiB; take less text",
          slots);
    std::ranges::sort(falling, std::greater(), &PieceCount::count);

    std::array<Token, 256> token_of;
    const std::array<unsigned char, 256>& alphabet = byte_alphabet().in_order;
    for (int token = 0; token < byte_tokens; ++token) token_of[alphabet[static_cast<std::size_t>(token)]] = token;
    slots_.reserve(slots);
    slots_.push_back(none);
    for (const PieceCount* piece : falling) {
      if (counts_.empty() || counts_.back() != piece->count) {
        counts_.push_back(piece->count);
        count_ends_.push_back(0);
      }
      for (const char byte : piece->piece) slots_.push_back(token_of[static_cast<unsigned char>(byte)]);
      slots_.push_back(none);
      count_ends_.back() = static_cast<Place>(slots_.size());
    }
  }

  void find_pairs_of_bytes() {
    PlacesByKey pairs;
    pairs.allow_keys(byte_tokens * byte_tokens);
    pairs.reserve(slots_.size());
    Counts count(*this);
    for (Place place = 1; place + 1 < slots_.size(); ++place)
      if (slots_[place] != none && slots_[place + 1] != none)
        pairs.add(static_cast<std::uint32_t>(slots_[place] * byte_tokens + slots_[place + 1]), place, count(place));
    keep(pairs, [](std::uint32_t key) {
      return BytePair{static_cast<Token>(key / byte_tokens), static_cast<Token>(key % byte_tokens)};
    });
  }

  /// Whether `pair` stands at `place`, where its left token or a part of it stood before.
  bool stands(BytePair pair, Place place) const {
    return slots_[place] == pair.left && slots_[place + token_bytes(pair.left)] == pair.right;
  }

  void recount(Candidate& candidate) const {
    Counts count(*this);
    candidate.count = 0;
    std::size_t left = 0;
    for (const Place place : candidate.places)
      if (stands(candidate.pair, place)) {
        candidate.places[left++] = place;
        candidate.count += count(place);
      }
    candidate.places = candidate.places.first(left);
  }

  /// Makes a new token of the pair everywhere, from the left, and candidates of the pairs that it forms.
  void merge(const Candidate& candidate) {
    const auto joined = static_cast<Token>(token_bytes_.size());
    const BytePair pair = candidate.pair;
    const Place left_bytes = token_bytes(pair.left), both_bytes = left_bytes + token_bytes(pair.right);
    token_bytes_.push_back(both_bytes);
    before_.allow_keys(token_bytes_.size());
    after_.allow_keys(token_bytes_.size());
    Counts count_at(*this);
    for (const Place place : candidate.places) {
      if (!stands(pair, place)) continue;  // its left token has just become the right part of the same pair
      const std::uint64_t count = count_at(place);
      const Place middle = place + left_bytes, end = place + both_bytes;
      slots_[middle - 1] = slots_[middle] = none;
      slots_[place] = slots_[end - 1] = joined;
      const Token before = slots_[place - 1], after = slots_[end];
      if (before == joined)
        after_.add(static_cast<std::uint32_t>(joined), place - both_bytes, count);
      else if (before != none)
        before_.add(static_cast<std::uint32_t>(before), place - token_bytes(before), count);
      if (after != none && !stands(pair, end)) after_.add(static_cast<std::uint32_t>(after), place, count);
    }
    keep(before_, [&](std::uint32_t token) { return BytePair{static_cast<Token>(token), joined}; });
    keep(after_, [&](std::uint32_t token) { return BytePair{joined, static_cast<Token>(token)}; });
  }

  template <class PairOf>
  void keep(PlacesByKey& found, PairOf&& pair_of) {
    blocks_.push_back(found.collect([&](std::uint32_t key, std::uint64_t count, std::span<Place> places) {
      candidates_.push({count, pair_of(key), places});
    }));
  }

  Place token_bytes(Token token) const { return token_bytes_[static_cast<std::size_t>(token)]; }

  /// A token stands in the first and in the last slot of its bytes, so that it is found from both sides; `none`
  /// stands in the others and around pieces.
  std::vector<Token> slots_;
  std::vector<std::uint64_t> counts_;  ///< of pieces, falling, each once
  std::vector<Place> count_ends_;      ///< where the pieces of each end
  std::priority_queue<Candidate> candidates_;
  std::vector<std::unique_ptr<Place[]>> blocks_;
  PlacesByKey before_, after_;  ///< of merge()
  std::vector<Place> token_bytes_;
};

}  // namespace

void PieceCounter::add(SplitPattern pattern, std::string_view text) {
  while (!text.empty()) {
    const std::size_t piece_bytes = front_piece(pattern, text);
    add(text.substr(0, piece_bytes), 1);
    text.remove_prefix(piece_bytes);
  }
}

void PieceCounter::add(std::string_view piece, std::uint64_t count) {
  add(piece, static_cast<std::uint32_t>(std::hash<std::string_view>()(piece)), count);
}

void PieceCounter::merge(const PieceCounter& other) {
  for (const Slot& slot : other.table_)
    if (slot.place != 0) add(other.pieces_[slot.place - 1].piece, slot.hash, other.pieces_[slot.place - 1].count);
}

void PieceCounter::add(std::string_view piece, std::uint32_t hash, std::uint64_t count) {
  if (2 * (pieces_.size() + 1) > table_.size()) grow_table();
  std::size_t at = hash & (table_.size() - 1);
  for (; table_[at].place != 0; at = (at + 1) & (table_.size() - 1))
    if (table_[at].hash == hash) {
      Counted& counted = pieces_[table_[at].place - 1];
      if (counted.piece != piece) continue;
      counted.count += count;
      return;
    }
  pieces_.push_back({keep(piece), count});
  table_[at] = {hash, static_cast<std::uint32_t>(pieces_.size())};
}

void PieceCounter::grow_table() {
  std::vector<Slot> grown(std::max<std::size_t>(2 * table_.size(), 1024));
  for (const Slot& slot : table_) {
    if (slot.place == 0) continue;
    std::size_t at = slot.hash & (grown.size() - 1);
    while (grown[at].place != 0) at = (at + 1) & (grown.size() - 1);
    grown[at] = slot;
  }
  table_ = std::move(grown);
}

std::string_view PieceCounter::keep(std::string_view piece) {
  if (piece.size() > free_.size()) {
    const std::size_t room = std::max(block_bytes, piece.size());
    blocks_.push_back(std::make_unique_for_overwrite<char[]>(room));
    free_ = {blocks_.back().get(), room};
  }
  const std::span<char> kept = free_.first(piece.size());
  std::ranges::copy(piece, kept.begin());
  free_ = free_.subspan(piece.size());
  return {kept.data(), kept.size()};
}

std::vector<PieceCount> PieceCounter::result() const {
  std::vector<PieceCount> counts;
  counts.reserve(pieces_.size());
  for (const Counted& counted : pieces_) counts.push_back({std::string(counted.piece), counted.count});
  return counts;
}

std::vector<BytePair> train_byte_pairs(std::span<const PieceCount> pieces, int merges) {
  return PairMerger(pieces).merge_most_frequent(merges);
}

}  // namespace dekoder
