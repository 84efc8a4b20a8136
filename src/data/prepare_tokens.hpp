// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

#include "data/token_dataset.hpp"

namespace dekoder {

struct PrepareReport {
  bool unchanged = false;  ///< the output was there already, made from the same text in the same way
  TokenFileHeader header;  ///< of the output
};

/// Makes a token file from a text file, a regular one: it is read twice (check, vocabulary and hash; then encoding)
/// through fixed buffers, so that it may be larger than memory. The last `validation_fraction` of the tokens is
/// held out. The output appears whole or not at all: it is a PendingFile, read back against its digests before it
/// takes its name. Throws DataError for a text that is missing, empty, too short, not UTF-8 (characters) or changes
/// meanwhile, and for an output that cannot be written or is some other file; ReadError where the system cannot
/// read the text, or the output that is there; ConfigError for a fraction outside of [0, 1).
PrepareReport prepare_tokens(const std::filesystem::path& text, const std::filesystem::path& output,
                             TokenizerKind kind, double validation_fraction);

}  // namespace dekoder
