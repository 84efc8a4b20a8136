// SPDX-License-Identifier: Apache-2.0
#include "io/run/checkpoint_review.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "io/run/checkpoint_folder.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;
using Extents = std::vector<std::size_t>;

/// Faults of one kind: the first one in words, the others as a number.
struct Faults {
  std::string first;
  std::size_t tensors = 0;

  void add(const std::string& fault) {
    if (tensors++ == 0) first = fault;
  }
  std::string text() const { return tensors < 2 ? first : fmt::format("{}, and {} more", first, tensors - 1); }
};

/// Reads a whole tensor. Returns what is to be said of values that are not finite, "" where all are.
std::string read_values(const OpenCheckpoint& checkpoint, const TensorRecord& record, TensorReader& reader) {
  std::size_t odd = 0, elements = 0;
  Extents first;
  double value = 0;
  reader.for_each_block([&](const Extents& offset, const Extents& count) {
    const std::size_t bytes = reader.read(offset, count).size();
    const std::size_t size = bytes / (record.type == Hdf5Type::float64 ? 8 : 4);
    elements += size;
    for (std::size_t i = 0; i < size; ++i) {
      if (std::isfinite(reader.value(i))) continue;
      if (odd++ != 0) continue;
      first = index_in_tensor(i, offset, count);
      value = reader.value(i);
    }
  });
  if (odd == 0) return "";
  return fmt::format("{}:{}: {} of {} values are not finite, first that at ({}): {}", checkpoint.name(),
                     record.path, odd, elements, fmt::join(first, ","), value);
}

/// Throws as open_checkpoint.
CheckpointReview review_open(const OpenCheckpoint& checkpoint, const LayoutOfConfig& layout_of) {
  CheckpointReview review;
  review.info = checkpoint.info;
  review.tensors = checkpoint.records.size();
  const long named = checkpoint_step(checkpoint.file.path());
  if (named >= 0 && named != checkpoint.info.step)
    throw DataError("{}: holds step {}, not that of its name", checkpoint.name(), checkpoint.info.step);
  try {
    const ParameterLayout layout = layout_of(checkpoint.info.config_yaml, checkpoint.name());
    constexpr const char* remedy = "it does not fit the configuration that is in the file";
    std::vector<std::string> groups(state_groups.begin(), state_groups.end());
    std::erase_if(groups, [&](const std::string& group) { return !is_kept(group, layout); });
    require_groups(checkpoint, groups, remedy);
    for (const std::string& group : groups) matched_records(checkpoint, group, layout, remedy);
  } catch (const ConfigError& error) {
    review.verdict = CheckpointVerdict::other_layout;
    review.reason = error.what();
  }
  Faults damaged, not_finite;
  for (const TensorRecord& record : checkpoint.records) {
    try {
      TensorReader reader(checkpoint, record);
      const std::string odd = read_values(checkpoint, record, reader);
      reader.require_intact();
      if (!odd.empty()) not_finite.add(odd);
    } catch (const ReadError&) {
      throw;
    } catch (const DataError& error) {
      damaged.add(error.what());
    }
  }
  if (damaged.tensors > 0) throw DataError("{}", damaged.text());
  if (review.verdict == CheckpointVerdict::valid && not_finite.tensors > 0) {
    review.verdict = CheckpointVerdict::not_finite;
    review.reason = not_finite.text();
  }
  return review;
}

}  // namespace

const char* verdict_name(CheckpointVerdict verdict) {
  switch (verdict) {
    case CheckpointVerdict::valid:
      return "VALID";
    case CheckpointVerdict::not_finite:
      return "not finite";
    case CheckpointVerdict::other_layout:
      return "other layout";
    case CheckpointVerdict::newer_format:
      return "newer format";
    case CheckpointVerdict::damaged:
      return "damaged";
    case CheckpointVerdict::unreadable:
      return "unreadable";
    case CheckpointVerdict::gone:
      return "gone";
  }
  throw std::logic_error("unknown CheckpointVerdict");
}

CheckpointReview review_checkpoint(const fs::path& file, const LayoutOfConfig& layout_of) {
  const auto failed = [&](CheckpointVerdict verdict, const DataError& error) {
    CheckpointReview review;
    std::error_code ignored;
    review.verdict =
        fs::symlink_status(file, ignored).type() == fs::file_type::not_found ? CheckpointVerdict::gone : verdict;
    review.reason = error.what();
    review.info.step = -1;
    return review;
  };
  try {
    return review_open(open_checkpoint(file), layout_of);
  } catch (const NewerFormatError& error) {
    return failed(CheckpointVerdict::newer_format, error);
  } catch (const ReadError& error) {
    return failed(CheckpointVerdict::unreadable, error);
  } catch (const DataError& error) {
    return failed(CheckpointVerdict::damaged, error);
  }
}

// ---- differences

namespace {

/// Takes in one pair of elements that differ.
void add_pair(TensorDifference& difference, double left, double right) {
  const double distance = std::abs(left - right), scale = std::max(std::abs(left), std::abs(right));
  const double relative = std::isinf(distance) || std::isnan(distance) ? distance
                          : scale == 0                                 ? 0
                                                                       : distance / scale;
  const auto raise = [](double& maximum, double value) {  // NaN stays
    if (!(value <= maximum) && !std::isnan(maximum)) maximum = value;
  };
  ++difference.elements;
  raise(difference.max_absolute, distance);
  raise(difference.max_relative, relative);
}

}  // namespace

TensorDifference compare_tensors(const OpenCheckpoint& left, const TensorRecord& left_record,
                                 const OpenCheckpoint& right, const TensorRecord& right_record) {
  if (left_record.shape != right_record.shape)
    throw ShapeError(fmt::format("compare_tensors: {} of shape ({}) and ({})", left_record.path,
                                 fmt::join(left_record.shape, ","), fmt::join(right_record.shape, ",")));
  TensorReader a(left, left_record), b(right, right_record);
  TensorDifference difference;
  const bool one_type = left_record.type == right_record.type;
  a.for_each_block([&](const Extents& offset, const Extents& count) {
    const auto left_bytes = a.read(offset, count), right_bytes = b.read(offset, count);
    if (one_type && std::memcmp(left_bytes.data(), right_bytes.data(), left_bytes.size()) == 0) return;
    const std::size_t width = left_record.type == Hdf5Type::float64 ? 8 : 4, size = left_bytes.size() / width;
    for (std::size_t i = 0; i < size; ++i) {
      const double x = a.value(i), y = b.value(i);
      const bool equal = one_type ? std::memcmp(&left_bytes[i * width], &right_bytes[i * width], width) == 0
                                  : x == y || (std::isnan(x) && std::isnan(y));
      if (equal) continue;
      if (difference.elements == 0) {
        difference.first = index_in_tensor(i, offset, count);
        difference.first_left = x;
        difference.first_right = y;
      }
      add_pair(difference, x, y);
    }
  });
  a.require_intact();
  b.require_intact();
  return difference;
}

}  // namespace dekoder
