// SPDX-License-Identifier: Apache-2.0
#include "inference/generated_text.hpp"

#include <algorithm>

namespace dekoder {

std::string GeneratedText::take(const std::string& piece) {
  std::string sure;
  for (const char byte : piece) {
    if (stopped_) break;
    held_back_ += byte;
    std::size_t begun = 0, ended = 0;  // bytes at the end: that a stop string begins with; that are one
    for (const std::string& stop : stops_) {
      if (held_back_.ends_with(stop)) ended = std::max(ended, stop.size());
      for (std::size_t n = std::min(stop.size() - 1, held_back_.size()); n > begun; --n)
        if (held_back_.ends_with(std::string_view(stop).substr(0, n))) begun = n;
    }
    stopped_ = ended > 0;
    const std::size_t known = held_back_.size() - (stopped_ ? ended : begun);
    sure += held_back_.substr(0, known);
    held_back_.erase(0, known);
  }
  return sure;
}

std::string GeneratedText::finish() {
  const std::string sure = take(characters_.finish());
  return stopped_ ? sure : sure + held_back_;
}

}  // namespace dekoder
