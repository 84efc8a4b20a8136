// SPDX-License-Identifier: Apache-2.0
#include "tensor/shape_signature.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cctype>
#include <span>

#include "base/error.hpp"

namespace dekoder {

namespace {

struct SignatureItem {
  std::string_view name;
  std::string_view axes;  // "B,T,3,H,D"
  bool optional = false;
};

/// Takes the next `name[?](axes)` off the front of `text`; false at its end.
bool next_item(std::string_view& text, SignatureItem& item) {
  const std::size_t begin = text.find_first_not_of(" ->");
  if (begin == std::string_view::npos) return false;
  const std::size_t open = text.find('(', begin), close = text.find(')', begin);
  item.name = text.substr(begin, open - begin);
  item.optional = item.name.ends_with('?');
  if (item.optional) item.name.remove_suffix(1);
  item.axes = text.substr(open + 1, close - open - 1);
  text.remove_prefix(close + 1);
  return true;
}

std::string extents_text(const TensorExtents& tensor) {
  return fmt::format("({})",
                     fmt::join(std::span(tensor.extent.data(), static_cast<std::size_t>(tensor.rank)), ","));
}

std::string known_text(const MatchedExtents& extents) {
  std::string text;
  for (char axis = 'A'; axis <= 'Z'; ++axis)
    if (extents[axis] >= 0) text += fmt::format("{}{}={}", text.empty() ? "" : ", ", axis, extents[axis]);
  return text.empty() ? "nothing is known yet" : text;
}

[[noreturn]] void throw_conflict(const ShapeSignature& signature, std::string_view tensor, const std::string& got,
                                 const MatchedExtents& known, const std::string& reason) {
  throw ShapeError(fmt::format("{}: {} is {} but {} ({}); expected {}", signature.function(), tensor, got,
                               known_text(known), reason, signature.text()));
}

void match_tensor(const ShapeSignature& signature, const SignatureItem& item, const TensorExtents& tensor,
                  MatchedExtents& known) {
  std::string_view axes = item.axes;
  int axis_index = 0;
  while (!axes.empty()) {
    const std::size_t comma = std::min(axes.find(','), axes.size());
    const std::string_view axis = axes.substr(0, comma);
    axes.remove_prefix(std::min(comma + 1, axes.size()));
    if (axis_index >= tensor.rank)
      throw_conflict(signature, item.name, extents_text(tensor), known, "rank too low");
    const long got = static_cast<long>(tensor.extent[static_cast<std::size_t>(axis_index++)]);
    if (std::isdigit(static_cast<unsigned char>(axis[0]))) {
      if (std::stol(std::string(axis)) != got)
        throw_conflict(signature, item.name, extents_text(tensor), known,
                       fmt::format("fixed extent {} on axis {}", axis, axis_index - 1));
    } else if (long& extent = known[axis[0]]; extent < 0) {
      extent = got;
    } else if (extent != got) {
      throw_conflict(signature, item.name, extents_text(tensor), known, fmt::format("conflict at {}", axis[0]));
    }
  }
  if (axis_index != tensor.rank) throw_conflict(signature, item.name, extents_text(tensor), known, "rank too high");
}

}  // namespace

MatchedExtents ShapeSignature::match_extents(std::span<const TensorExtents> tensors) const {
  MatchedExtents known;
  std::string_view text = text_;
  SignatureItem item;
  for (const TensorExtents& tensor : tensors) {
    if (!next_item(text, item)) throw ShapeError(fmt::format("{}: more tensors than {} names", function_, text_));
    if (!tensor.present) {
      if (item.optional) continue;
      throw_conflict(*this, item.name, "empty", known, "it must be given");
    }
    match_tensor(*this, item, tensor, known);
  }
  if (next_item(text, item))
    throw ShapeError(fmt::format("{}: {} was not given; expected {}", function_, item.name, text_));
  return known;
}

}  // namespace dekoder
