// SPDX-License-Identifier: Apache-2.0
#include "data/import_shards.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "data/token_file_writer.hpp"
#include "io/files/sha256.hpp"

namespace dekoder {

namespace {

/// Tokens into a token file whose header knows how many there will be, and how many to train on.
template <class Stored>
class ShardTokens {
 public:
  ShardTokens(Hdf5File& file, TokenFileHeader& header, bool by_files)
      : header_(header),
        end_of_text_(header.tokenizer.end_of_text()),
        by_files_(by_files),
        writer_(file, header.tokens) {
    for (Token token = 0; token < header.tokenizer.vocabulary(); ++token)
      bytes_of_.push_back(static_cast<std::uint32_t>(header.tokenizer.bytes_of(token)));
  }

  void take(std::span<const Token> tokens) {
    while (!tokens.empty()) {
      const std::uint64_t at = writer_.pushed(), border = header_.training_tokens;
      const std::size_t count = at < border ? std::min<std::uint64_t>(tokens.size(), border - at) : tokens.size();
      add(tokens.first(count), at >= border);
      if (at + count == border) end_training();
      tokens = tokens.subspan(count);
    }
  }

  void finish(const std::string& name) {
    end_document();
    if (header_.split_by_document) header_.validation_documents = documents_ - training_documents_;
    header_.source_sha256 = digest_.finish();
    writer_.finish(header_, name);
  }

 private:
  void add(std::span<const Token> tokens, bool held_out) {
    stored_.assign(tokens.begin(), tokens.end());
    digest_.update(std::as_bytes(std::span(stored_)));
    std::uint64_t bytes = 0;
    for (const Token token : tokens) bytes += bytes_of_[static_cast<std::size_t>(token)];
    header_.source_bytes += bytes;
    if (held_out) header_.validation_bytes += bytes;
    if (end_of_text_ < 0) return writer_.push(stored_);
    for (std::size_t begin = 0, end; begin < stored_.size(); begin = end) {
      const auto from = stored_.begin() + static_cast<std::ptrdiff_t>(begin);
      const auto found = std::find(from, stored_.end(), static_cast<Stored>(end_of_text_));
      const bool ends = found != stored_.end();
      end = static_cast<std::size_t>(found - stored_.begin()) + ends;
      const bool has_text = end - begin > ends;
      writer_.push(std::span(stored_).subspan(begin, end - begin));
      open_document_ = open_document_ || has_text;
      if (ends && open_document_) end_document();
    }
  }
  /// An end-of-text token that nothing stands before belongs to what follows.
  void end_document() {
    open_document_ = false;
    if (end_of_text_ < 0 || writer_.pushed() == last_end_) return;
    last_end_ = writer_.pushed();
    writer_.push_end();
    ++documents_;
  }
  void end_training() {
    if (!by_files_) return;
    end_document();
    training_documents_ = documents_;
  }

  TokenFileHeader& header_;
  Token end_of_text_;
  bool by_files_, open_document_ = false;
  TokenFileWriter<Stored> writer_;
  Sha256 digest_;
  std::vector<std::uint32_t> bytes_of_;
  std::vector<Stored> stored_;
  std::uint64_t last_end_ = 0, documents_ = 0, training_documents_ = 0;
};

}  // namespace

ShardImport::ShardImport(const TokenShards& shards, const Tokenizer& tokenizer,
                         std::optional<double> validation_fraction)
    : shards_(shards), tokenizer_(tokenizer), by_files_(shards.training_tokens() < shards.tokens()) {
  const std::string place = shards.place();
  if (by_files_ && validation_fraction)
    throw ConfigError(
        "--validation-fraction is {}, and {} is held out, as the val in its name says; leave one of them out",
        *validation_fraction, shards.shards().back().path.string());
  header_.tokenizer = tokenizer;
  header_.source = shards.name();
  header_.tokens = shards.tokens();
  header_.training_tokens = shards.training_tokens();
  if (header_.training_tokens == 0)
    throw DataError("{}: all is held out, as the val in its name says; name files to train on beside it", place);
  if (!by_files_) {
    header_.validation_fraction = validation_fraction.value_or(token_file::default_validation_fraction);
    header_.training_tokens = token_file::training_part(header_.tokens, header_.validation_fraction);
  }
  token_file::require_training_part(header_, place);
  header_.split_by_document = by_files_ && tokenizer.end_of_text() >= 0;
}

bool ShardImport::is_source_of(const TokenFileHeader& there) const {
  if (there.tokens != header_.tokens || there.training_tokens != header_.training_tokens ||
      there.split_by_document != header_.split_by_document || there.tokenizer != tokenizer_)
    return false;
  Sha256 digest;
  with_stored_type(tokenizer_.vocabulary(), [&](auto stored) {
    std::vector<decltype(stored)> tokens;
    shards_.read(tokenizer_.vocabulary(), "is it prepared already", [&](std::span<const Token> piece) {
      tokens.assign(piece.begin(), piece.end());
      digest.update(std::as_bytes(std::span(tokens)));
    });
  });
  return there.source_sha256 == digest.finish();
}

void ShardImport::write(Hdf5File& file, TokenFileHeader& header) const {
  header = header_;
  with_stored_type(tokenizer_.vocabulary(), [&](auto stored) {
    ShardTokens<decltype(stored)> tokens(file, header, by_files_);
    shards_.read(tokenizer_.vocabulary(), "tokens", [&](std::span<const Token> piece) { tokens.take(piece); });
    tokens.finish(shards_.place());
  });
}

}  // namespace dekoder
