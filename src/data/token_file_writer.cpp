// SPDX-License-Identifier: Apache-2.0
#include "data/token_file_writer.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace dekoder {

template <class Value>
void GrowingDataset<Value>::append(std::span<const Value> values) {
  if (!dataset_) {
    // All of the values where they are fewer than a chunk.
    chunk_ = std::min(chunk_, total_ > 0 ? total_ : values.size());
    const std::array<std::size_t, 1> shape = {total_}, chunk = {chunk_};
    Hdf5Storage storage{{chunk.begin(), chunk.end()}, true};
    storage.extendable = total_ == 0;
    dataset_.emplace(file_.create_dataset(name_, hdf5_type_of<Value>(), shape, storage));
  }
  if (total_ == 0) dataset_->extend(size_ + values.size());
  const std::array<std::size_t, 1> offset = {size_}, count = {values.size()};
  dataset_->write(values, offset, count);
  size_ += values.size();
}

template <class Value>
void GrowingDataset<Value>::read(std::uint64_t first, std::span<Value> values) const {
  const std::array<std::size_t, 1> offset = {first}, count = {values.size()};
  dataset_->read(values, offset, count);
}

template <class Value>
void GrowingDataset<Value>::close() {
  if (dataset_) dataset_->close();
  dataset_.reset();
}

template <class Stored>
TokenFileWriter<Stored>::TokenFileWriter(Hdf5File& file, std::uint64_t total)
    : file_(file),
      total_(total),
      block_tokens_(token_file::block_bytes / sizeof(Stored)),
      tokens_(file, "/tokens", block_tokens_, total),
      ends_(file, "/document_ends", token_file::document_ends_chunk, 0) {
  if (total > 0) block_tokens_ = std::min<std::uint64_t>(block_tokens_, total);
  block_.reserve(block_tokens_);
}

template <class Stored>
void TokenFileWriter<Stored>::push(std::span<const Stored> tokens) {
  while (!tokens.empty()) {
    if (total_ > 0 && tokens_.size() + block_.size() == total_) {  // the source has grown
      surplus_ += tokens.size();
      return;
    }
    std::uint64_t room = block_tokens_ - block_.size();
    if (total_ > 0) room = std::min(room, total_ - tokens_.size() - block_.size());
    const std::span<const Stored> taken = tokens.first(std::min<std::size_t>(room, tokens.size()));
    block_.insert(block_.end(), taken.begin(), taken.end());
    tokens = tokens.subspan(taken.size());
    if (block_.size() == block_tokens_) flush();
  }
}

template <class Stored>
void TokenFileWriter<Stored>::flush() {
  tokens_.append(block_);
  digests_.push_back(token_file::block_digest<Stored>(digests_.size(), block_));
  block_.clear();
}

template <class Stored>
void TokenFileWriter<Stored>::push_end() {
  new_ends_.push_back(pushed());
  if (new_ends_.size() < token_file::document_ends_chunk) return;
  ends_.append(new_ends_);
  new_ends_.clear();
}

template <class Stored>
std::uint64_t TokenFileWriter<Stored>::bytes_from(std::uint64_t first, const Tokenizer& tokenizer) const {
  if (tokenizer.kind() == TokenizerKind::bytes) return pushed() - first;
  std::uint64_t bytes = 0;
  const auto add = [&](std::span<const Stored> tokens) {
    for (const Stored token : tokens) bytes += tokenizer.bytes_of(static_cast<Token>(token));
  };
  std::vector<Stored> tokens;
  for (; first < tokens_.size(); first += tokens.size()) {
    tokens.resize(std::min(block_tokens_ - first % block_tokens_, tokens_.size() - first));
    tokens_.read(first, std::span<Stored>(tokens));
    add(tokens);
  }
  add(std::span(block_).subspan(std::min<std::uint64_t>(first - tokens_.size(), block_.size())));
  return bytes;
}

template <class Stored>
void TokenFileWriter<Stored>::finish(TokenFileHeader& header, const std::string& name) {
  header.tokens = pushed();
  if (total_ > 0 && header.tokens != total_)
    throw DataError("{}: changed while it was read; prepare it again", name);
  if (!block_.empty()) flush();
  header.block_tokens = std::min(block_tokens_, header.tokens);
  file_.write<std::uint64_t>("/block_digests", std::span<const std::uint64_t>(digests_));
  tokens_.close();
  if (!new_ends_.empty()) ends_.append(new_ends_);
  header.documents = ends_.size();
  ends_.close();
}

template class TokenFileWriter<std::uint16_t>;
template class TokenFileWriter<std::uint32_t>;

void token_file::write_header(Hdf5File& file, const TokenFileHeader& header) {
  const bool keeps_bytes = header.tokenizer.keeps_bytes();
  file.write_attribute("/", "format", token_file::format);
  file.write_attribute("/", "major", token_file::major_version);
  file.write_attribute("/", "minor", header.documents > 0 || !keeps_bytes ? token_file::minor_version : 0);
  file.write_text("tokenizer", header.tokenizer.to_text());
  file.write_attribute("/", "source", header.source);
  file.write_attribute("/", "source_sha256", header.source_sha256);
  file.write_attribute("/", "source_bytes", header.source_bytes);
  file.write_attribute("/", "tokens", header.tokens);
  file.write_attribute("/", "training_tokens", header.training_tokens);
  file.write_attribute("/", "validation_bytes", header.validation_bytes);
  file.write_attribute("/", "block_tokens", header.block_tokens);
  if (!keeps_bytes) {
    file.write_attribute("/", "validation_token_bytes", header.validation_token_bytes);
    file.write_attribute("/", "unknown_tokens", header.unknown_tokens);
  }
  if (header.documents == 0) return;
  file.write_attribute("/", "documents", header.documents);
  file.write_attribute("/", "validation_documents", header.validation_documents);
  file.write_attribute("/", "empty_documents", header.empty_documents);
  file.write_attribute("/", "split", header.split_by_document ? "document" : "place");
  file.write_attribute("/", "validation_fraction", header.validation_fraction);
}

std::uint64_t token_file::training_part(std::uint64_t tokens, double validation_fraction) {
  const auto held_out = static_cast<std::uint64_t>(std::llround(validation_fraction * static_cast<double>(tokens)));
  return tokens - std::min(held_out, tokens);
}

void token_file::require_training_part(const TokenFileHeader& header, const std::string& name) {
  if (header.tokens == 0) throw DataError("{}: is empty, expected text", name);
  if (header.training_tokens < 2) {
    throw DataError(
        "{}: its {} tokens leave {} to train on after {:g} of them are held out, expected at least 2; use a "
        "longer text or a smaller validation fraction",
        name, header.tokens, header.training_tokens, header.validation_fraction);
  }
}

}  // namespace dekoder
