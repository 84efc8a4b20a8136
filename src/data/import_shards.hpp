// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "data/token_dataset.hpp"
#include "data/token_shards.hpp"
#include "io/hdf5/hdf5_file.hpp"

namespace dekoder {

/// Token shards on their way into a token file: their tokens verbatim.
///
/// Where names tell which files are held out, these are; else the last tokens, by the fraction. A document ends
/// with each end-of-text token, if the tokenizer has one, and with the training part of files: programs that put
/// that token in front of documents, as llm.c does, have the same documents, but for the tokens at the ends of the
/// parts. What the bytes of the source were is taken from the tokens (Tokenizer::bytes_of). Digest (source_sha256):
/// of all tokens, as the token file stores them.
class ShardImport {
 public:
  /// Keeps references. Throws DataError where fewer than 2 tokens are left to train on, ConfigError for a fraction
  /// beside files that are held out by their names.
  ShardImport(const TokenShards& shards, const Tokenizer& tokenizer, std::optional<double> validation_fraction);

  /// Whether a file has these tokens and this held-out part; reads the shards where the numbers agree.
  bool is_source_of(const TokenFileHeader& there) const;
  /// Writes the datasets and sets all fields of the header. Throws as TokenShards::read.
  void write(Hdf5File& file, TokenFileHeader& header) const;

 private:
  const TokenShards& shards_;
  const Tokenizer& tokenizer_;
  bool by_files_;
  TokenFileHeader header_;  ///< what is known before the tokens are
};

}  // namespace dekoder
