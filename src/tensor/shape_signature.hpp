// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace dekoder {

/// Extents found by ShapeSignature::match, by the axis' letter: extent['B'].
class MatchedExtents {
 public:
  long operator[](char axis) const { return extent_[static_cast<std::size_t>(axis - 'A')]; }
  long& operator[](char axis) { return extent_[static_cast<std::size_t>(axis - 'A')]; }

 private:
  std::array<long, 26> extent_ = [] {
    std::array<long, 26> unknown{};
    unknown.fill(-1);
    return unknown;
  }();
};

/// Rank and extents of one tensor as handed to a function; `present` is false for an empty optional one.
struct TensorExtents {
  int rank = 0;
  bool present = true;
  std::array<std::size_t, 5> extent{};
};

/// The shapes of a function's tensors, documentation and check in one string:
/// `"x(N,C) gain(C) bias?(C) -> y(N,C) rstd(N)"`. A capital letter is an axis, a number is a fixed extent, `?`
/// marks a tensor that may be empty. The string is checked for form at compile time and matched at every call in
/// every build.
class ShapeSignature {
 public:
  consteval ShapeSignature(const char* function, const char* text) : function_(function), text_(text) {
    // name[?](axis,axis) items, one `->` between inputs and outputs
    std::size_t arrows = 0, opened = 0, closed = 0;
    for (std::size_t i = 0; i < text_.size(); ++i) {
      if (text_[i] == '(') ++opened;
      if (text_[i] == ')') ++closed;
      if (text_[i] == '>') ++arrows;
      if (closed > opened || opened > closed + 1) throw "unbalanced parentheses in a shape signature";
    }
    if (arrows != 1 || opened != closed || opened == 0) throw "a shape signature reads: a(B,T) b?(C) -> c(B,C)";
  }

  /// Matches the tensors, in the order of the text, and returns the extent of every axis.
  /// Throws ShapeError naming function, tensor, extents and the axis in conflict.
  template <class... Tensors>
  MatchedExtents match(const Tensors&... tensors) const {
    const std::array<TensorExtents, sizeof...(Tensors)> described{describe(tensors)...};
    return match_extents(described);
  }
  /// match() for extents described already.
  MatchedExtents match_extents(std::span<const TensorExtents> tensors) const;

  constexpr const char* function() const { return function_; }
  constexpr std::string_view text() const { return text_; }

 private:
  template <class Tensor>
  static TensorExtents describe(const Tensor& tensor) {
    TensorExtents result;
    result.rank = static_cast<int>(Tensor::rank());
    result.present = tensor.data() != nullptr || tensor.size() != 0;
    for (int axis = 0; axis < result.rank; ++axis)
      result.extent[static_cast<std::size_t>(axis)] = tensor.extent(static_cast<std::size_t>(axis));
    return result;
  }

  const char* function_;
  std::string_view text_;
};

}  // namespace dekoder
