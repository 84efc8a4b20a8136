// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "data/token_dataset.hpp"
#include "io/hdf5/hdf5_file.hpp"

namespace dekoder {

/// Values of a new dataset of one axis that come one after the other, and whose number need not be known.
template <class Value>
class GrowingDataset {
 public:
  /// In chunks of `chunk`. `total`: how many will come; 0: not known.
  GrowingDataset(Hdf5File& file, std::string name, std::size_t chunk, std::size_t total)
      : file_(file), name_(std::move(name)), chunk_(chunk), total_(total) {}

  std::uint64_t size() const { return size_; }
  void append(std::span<const Value> values);
  void read(std::uint64_t first, std::span<Value> values) const;
  void close();

 private:
  Hdf5File& file_;
  std::string name_;
  std::size_t chunk_, total_;
  std::uint64_t size_ = 0;
  std::optional<Hdf5Dataset> dataset_;
};

/// Puts tokens, as they come, into a new token file: in blocks with their digests, and the ends of documents.
/// Stored: std::uint16_t or std::uint32_t (with_stored_type).
template <class Stored>
class TokenFileWriter {
 public:
  /// `total`: the tokens there will be; 0: not known.
  TokenFileWriter(Hdf5File& file, std::uint64_t total);

  /// Tokens so far.
  std::uint64_t pushed() const { return tokens_.size() + block_.size() + surplus_; }
  void push(std::span<const Stored> tokens);
  /// A document ends with the tokens so far.
  void push_end();
  /// Bytes of text that the tokens from `first` on stand for.
  std::uint64_t bytes_from(std::uint64_t first, const Tokenizer& tokenizer) const;
  /// Writes what is left; sets the header's tokens, block_tokens and documents. Throws DataError that begins with
  /// `name` where there came more or fewer tokens than were announced.
  void finish(TokenFileHeader& header, const std::string& name);

 private:
  void flush();

  Hdf5File& file_;
  std::uint64_t total_, block_tokens_;
  GrowingDataset<Stored> tokens_;
  GrowingDataset<std::uint64_t> ends_;
  std::vector<Stored> block_;
  std::vector<std::uint64_t> digests_, new_ends_;
  std::uint64_t surplus_ = 0;
};

/// Calls act(a token of the type that tokens of so large a vocabulary are stored as).
template <class Act>
void with_stored_type(int vocabulary, Act&& act) {
  if (vocabulary > 65536)
    act(std::uint32_t{});
  else
    act(std::uint16_t{});
}

namespace token_file {

inline constexpr double default_validation_fraction = 0.1;

/// Writes the attributes and the tokenizer.
void write_header(Hdf5File& file, const TokenFileHeader& header);

/// Of `tokens` so many are to train on where this share is held out.
std::uint64_t training_part(std::uint64_t tokens, double validation_fraction);

/// Throws DataError that begins with `name` where header.tokens is 0 or fewer than 2 of them are to train on.
void require_training_part(const TokenFileHeader& header, const std::string& name);

}  // namespace token_file

}  // namespace dekoder
