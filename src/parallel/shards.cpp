// SPDX-License-Identifier: Apache-2.0
#include "parallel/shards.hpp"

#include <algorithm>
#include <utility>

namespace dekoder {

std::size_t elements_of(const std::vector<FlatRange>& ranges) {
  std::size_t elements = 0;
  for (const FlatRange& range : ranges) elements += range.size();
  return elements;
}

Shards::Shards(std::size_t flat, std::size_t unit, const std::vector<std::size_t>& finished, std::size_t bucket,
               int ranks)
    : flat_(flat), unit_(unit), bucket_(bucket), ranks_(ranks) {
  std::size_t end = flat;
  for (auto place = finished.rbegin(); place != finished.rend(); ++place) {
    const std::size_t begin = (*place + unit - 1) / unit * unit;  // what lies before is not done yet
    if (begin >= end || (end - begin < bucket && *place > 0)) continue;
    const std::size_t units = (end - begin + unit - 1) / unit,
                      parts = std::max<std::size_t>((end - begin) / bucket, 1);
    for (std::size_t part = parts; part-- > 0;) {
      const std::size_t cut = begin + units * part / parts * unit;
      if (cut < end) buckets_.push_back({cut, std::exchange(end, cut)});
    }
  }
  places_.resize(buckets_.size());
  std::vector<std::size_t> owned(static_cast<std::size_t>(ranks), 0);
  for (std::size_t b = buckets_.size(); b-- > 0;) {
    places_[b] = owned;
    for (int rank = 0; rank < ranks; ++rank) owned[static_cast<std::size_t>(rank)] += piece(b, rank).size();
  }
}

FlatRange Shards::piece(std::size_t bucket, int rank) const {
  const FlatRange whole = buckets_.at(bucket);
  const std::size_t units = (whole.size() + unit_ - 1) / unit_, P = static_cast<std::size_t>(ranks_);
  const std::size_t share = (static_cast<std::size_t>(rank) + bucket) % P;  // the smaller ones fall to all in turn
  const auto cut = [&](std::size_t place) { return std::min(whole.begin + units * place / P * unit_, whole.end); };
  return {cut(share), cut(share + 1)};
}

std::vector<FlatRange> Shards::owned(int rank) const {
  std::vector<FlatRange> ranges;
  for (std::size_t b = buckets_.size(); b-- > 0;) {
    const FlatRange one = piece(b, rank);
    if (one.size() == 0) continue;
    if (!ranges.empty() && ranges.back().end == one.begin)
      ranges.back().end = one.end;
    else
      ranges.push_back(one);
  }
  return ranges;
}

std::vector<OwnedPart> Shards::parts_of(FlatRange range) const {
  std::vector<OwnedPart> parts;
  for (std::size_t b = buckets_.size(); b-- > 0;) {
    if (buckets_[b].end <= range.begin || buckets_[b].begin >= range.end) continue;
    for (int rank = 0; rank < ranks_; ++rank) {
      const FlatRange own = piece(b, rank);
      const FlatRange both{std::max(own.begin, range.begin), std::min(own.end, range.end)};
      if (both.begin < both.end)
        parts.push_back({rank, both, places_[b][static_cast<std::size_t>(rank)] + both.begin - own.begin});
    }
  }
  return parts;
}

}  // namespace dekoder
