// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/corpus.hpp"
#include "data/token_dataset.hpp"
#include "data/tokenizer_choice.hpp"

namespace dekoder {

struct PrepareOptions {
  std::vector<std::string> sources;  ///< texts, as Corpus takes them, or token shards, as TokenShards does
  std::string field;                 ///< of JSON lines; empty: text
  bool skip_bad_lines = false;       ///< of JSON lines, instead of an error for the first one
  std::filesystem::path output;
  TokenizerWish tokenizer;
  std::optional<double> validation_fraction;  ///< held out: of a single text's tokens or of shards, else of the
                                              ///< documents; not given: 0.1, or by the names of shards
  int threads = 1;                            ///< that encode; the output does not depend on them
};

struct PrepareReport {
  bool unchanged = false;  ///< the output was there already, made from the same text in the same way
  TokenFileHeader header;  ///< of the output
  SkippedLines skipped;    ///< of JSON lines
};

/// Makes a token file of texts or token shards; of these see ShardImport. The texts are read once, through fixed
/// buffers, so that they may be larger than memory (read_corpus says how much of it there is); that of characters
/// reads them before for the vocabulary, and where the output is there they are read for their digest first.
///
/// A document ends with the tokenizer's end-of-text token, if it has one; empty ones are left out. A single text is
/// one document, whose last tokens are held out. Of several documents one in each group of 1 / fraction is held
/// out, drawn by the number of the group: whole ones, which stand behind all others. They wait in a temporary file
/// beside the output until the reading ends. Digest (source_sha256): of a single text's bytes, or of those of each
/// document, each followed by their number (8 bytes, little-endian), however they were packed.
///
/// The output appears whole or not at all: it is a PendingFile, read back against its digests before it takes its
/// name. Throws DataError for a text that is missing, empty, too short, damaged, not UTF-8 (characters) or changes
/// meanwhile, and for an output that cannot be written or is some other file; ReadError where the system cannot
/// read a text, or the output that is there; ConfigError for a fraction outside of [0, 1) and an output that is one
/// of the sources, or would be by its name when folders are read again.
PrepareReport prepare_tokens(const PrepareOptions& options);

/// The same for a single file.
PrepareReport prepare_tokens(const std::filesystem::path& text, const std::filesystem::path& output,
                             TokenizerKind kind, double validation_fraction);

}  // namespace dekoder
