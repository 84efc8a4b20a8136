// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.hpp"

namespace dekoder {

/// The text of tokens as they come, up to the first of some stop strings, wherever tokens cut it: what may be the
/// beginning of one is held back until it is known. The first is the one that is complete first; of those that end
/// at one place, the longest.
class GeneratedText {
 public:
  /// Keeps references to both; no stop string is empty.
  GeneratedText(const Tokenizer& tokenizer, std::span<const std::string> stops)
      : characters_(tokenizer), stops_(stops) {}

  /// What is known to be of the text once `token` has come; may be empty.
  std::string push(Token token) { return take(characters_.push(token)); }
  /// What is left at the end, where no stop string came.
  std::string finish();
  /// Whether a stop string is complete: nothing more is of the text.
  bool stopped() const { return stopped_; }

 private:
  std::string take(const std::string& piece);

  StreamDecoder characters_;
  std::span<const std::string> stops_;
  std::string held_back_;  ///< the longest end of the text that a stop string begins with
  bool stopped_ = false;
};

}  // namespace dekoder
