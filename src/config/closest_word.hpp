// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace dekoder {

/// The candidate closest to `word` (Damerau-Levenshtein, at most a third of its length away), or "".
std::string closest_word(const std::string& word, const std::vector<std::string>& candidates);

/// "; did you mean 'layers'?" with the closest word, or "".
std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace dekoder
