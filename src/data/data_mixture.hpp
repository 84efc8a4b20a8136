// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/token_dataset.hpp"

namespace dekoder {

/// What a run trains on: the token files of its configuration, mostly a single one, in their order and with one
/// tokenizer.
class DataMixture {
 public:
  /// `weights`: of each file, or none (MixtureOrder). All together keep TokenDataset::default_memory_limit in
  /// memory. Throws as TokenDataset, DataError where the tokenizers differ, std::logic_error for no files.
  DataMixture(const std::vector<std::filesystem::path>& files, std::vector<double> weights);
  explicit DataMixture(TokenDataset only);

  std::span<const TokenDataset> sources() const { return sources_; }
  std::span<const double> weights() const { return weights_; }
  bool single() const { return sources_.size() == 1; }
  const Tokenizer& tokenizer() const { return sources_.front().tokenizer(); }
  int vocabulary() const { return sources_.front().vocabulary(); }
  /// For messages: the path of the first file, "data/a.h5 and 2 more".
  std::string name() const;
  /// Equal for files of the same texts with the same held-out parts, in the same order: TokenFileHeader::identity
  /// of each, with " + " between them.
  std::string identity() const;
  /// For messages: what differs from the files of another identity, in one sentence; empty where they are equal.
  std::string difference_from(const std::string& other) const;

 private:
  std::vector<TokenDataset> sources_;
  std::vector<double> weights_;
};

}  // namespace dekoder
