// SPDX-License-Identifier: Apache-2.0
// How the flat buffers of parameters, gradients and moments are shared out over ranks (ZeRO stage 1: Rajbhandari et
// al., "ZeRO: Memory optimizations toward training trillion parameter models", 2020, section 5.1).
#pragma once

#include <cstddef>
#include <vector>

namespace dekoder {

/// Elements [begin, end) of a flat buffer.
struct FlatRange {
  std::size_t begin = 0, end = 0;
  std::size_t size() const { return end - begin; }
  bool operator==(const FlatRange&) const = default;
};

/// All of them together.
std::size_t elements_of(const std::vector<FlatRange>& ranges);

/// What of `ranges` lies in none of `holes`; both ascend.
std::vector<FlatRange> without(const std::vector<FlatRange>& ranges, const std::vector<FlatRange>& holes);

/// What one rank owns of a range of the buffer.
struct OwnedPart {
  int rank = 0;
  FlatRange range;        ///< of the buffer
  std::size_t place = 0;  ///< of its first element among all that the rank owns
  bool operator==(const OwnedPart&) const = default;
};

/// The buffer is cut into buckets, from its end to its beginning, as backward finishes it; each bucket into one
/// piece for every rank, which owns it. So all ranks are sent to while one bucket travels. All cuts are at
/// multiples of `unit` elements, the leaf of sums over the buffer. Ranges that are to stay whole are cut nowhere:
/// then pieces are as even as those allow.
class Shards {
 public:
  /// `finished`: where backward says that all behind is done, in ascending order, 0 among them. A bucket closes at
  /// the first of them that gives it `bucket` elements, so that it holds no element before that is done; one of
  /// several times that size is cut evenly. `whole`: in ascending order, at multiples of `unit`.
  Shards(std::size_t flat, std::size_t unit, const std::vector<std::size_t>& finished, std::size_t bucket,
         int ranks, std::vector<FlatRange> whole = {});

  int ranks() const { return ranks_; }
  std::size_t flat() const { return flat_; }
  /// From the end of the buffer to its beginning.
  const std::vector<FlatRange>& buckets() const { return buckets_; }
  /// What a rank owns of a bucket; may be empty.
  FlatRange piece(std::size_t bucket, int rank) const;
  /// All that a rank owns, in ascending order, neighbours joined.
  std::vector<FlatRange> owned(int rank) const;
  std::size_t owned_elements(int rank) const { return elements_of(owned(rank)); }
  /// Every part of a range, those of one rank in ascending order.
  std::vector<OwnedPart> parts_of(FlatRange range) const;
  /// The same of a range that holds nothing whole; places are among what the rank owns besides what is whole.
  std::vector<OwnedPart> parts_beside_whole(FlatRange range) const;
  const std::vector<FlatRange>& whole() const { return whole_; }
  /// Elements that were asked for as a bucket.
  std::size_t bucket_elements() const { return bucket_; }

 private:
  /// The nearest place to `cut` that cuts nothing whole.
  std::size_t allowed(std::size_t cut) const;

  std::size_t flat_, unit_, bucket_;
  int ranks_;
  std::vector<FlatRange> whole_;
  std::vector<FlatRange> buckets_;
  std::vector<std::vector<std::size_t>> places_;  ///< (bucket, rank) of its piece among all that the rank owns
};

}  // namespace dekoder
