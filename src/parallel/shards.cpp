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

std::vector<FlatRange> without(const std::vector<FlatRange>& ranges, const std::vector<FlatRange>& holes) {
  std::vector<FlatRange> rest;
  for (FlatRange range : ranges) {
    for (const FlatRange& hole : holes) {
      if (hole.end <= range.begin || hole.begin >= range.end) continue;
      if (range.begin < hole.begin) rest.push_back({range.begin, hole.begin});
      range.begin = std::min(hole.end, range.end);
    }
    if (range.begin < range.end) rest.push_back(range);
  }
  return rest;
}

Shards::Shards(std::size_t flat, std::size_t unit, const std::vector<std::size_t>& finished, std::size_t bucket,
               int ranks, std::vector<FlatRange> whole)
    : flat_(flat), unit_(unit), bucket_(bucket), ranks_(ranks), whole_(std::move(whole)) {
  std::size_t end = flat;
  for (auto place = finished.rbegin(); place != finished.rend(); ++place) {
    std::size_t begin = (*place + unit - 1) / unit * unit;  // what lies before is not done yet
    for (const FlatRange& range : whole_)
      if (range.begin < begin && begin < range.end) begin = range.end;
    if (begin >= end || (end - begin < bucket && *place > 0)) continue;
    const std::size_t units = (end - begin + unit - 1) / unit,
                      parts = std::max<std::size_t>((end - begin) / bucket, 1);
    for (std::size_t part = parts; part-- > 0;) {
      const std::size_t cut = allowed(begin + units * part / parts * unit);
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

std::size_t Shards::allowed(std::size_t cut) const {
  const auto range =
      std::partition_point(whole_.begin(), whole_.end(), [&](const FlatRange& one) { return one.end <= cut; });
  if (range == whole_.end() || range->begin >= cut) return cut;
  return cut - range->begin < range->end - cut ? range->begin : range->end;
}

FlatRange Shards::piece(std::size_t bucket, int rank) const {
  const FlatRange whole = buckets_.at(bucket);
  const std::size_t units = (whole.size() + unit_ - 1) / unit_, P = static_cast<std::size_t>(ranks_);
  const std::size_t share = (static_cast<std::size_t>(rank) + bucket) % P;  // the smaller ones fall to all in turn
  const auto cut = [&](std::size_t place) {
    return std::min(allowed(whole.begin + units * place / P * unit_), whole.end);
  };
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

std::vector<OwnedPart> Shards::parts_beside_whole(FlatRange range) const {
  std::vector<OwnedPart> parts = parts_of(range);
  for (OwnedPart& part : parts) {
    part.place = 0;
    for (const FlatRange& own : without(owned(part.rank), whole_))
      if (own.begin < part.range.begin) part.place += std::min(own.end, part.range.begin) - own.begin;
  }
  return parts;
}

}  // namespace dekoder
