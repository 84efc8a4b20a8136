// SPDX-License-Identifier: Apache-2.0
#include "data/data_mixture.hpp"

#include <stdexcept>

#include "base/error.hpp"
#include "data/corpus.hpp"

namespace dekoder {

DataMixture::DataMixture(const std::vector<std::filesystem::path>& files, std::vector<double> weights)
    : weights_(std::move(weights)) {
  if (files.empty()) throw std::logic_error("DataMixture: there are no files");
  const auto told = [](const Tokenizer& tokenizer) {
    return fmt::format("{}, vocabulary {}", tokenizer_kind_name(tokenizer.kind()), tokenizer.vocabulary());
  };
  for (const std::filesystem::path& file : files) {
    const TokenDataset& source = sources_.emplace_back(file, TokenDataset::default_memory_limit / files.size());
    if (!(source.tokenizer() == tokenizer()))
      throw DataError(
          "{}: has another tokenizer ({}) than {} ({}); expected one for all files of a mixture: prepare each with "
          "the same --tokenizer FILE (`dekoder tokens {} -o tokenizer.json` writes that of bpe)",
          file.string(), told(source.tokenizer()), files.front().string(), told(tokenizer()),
          files.front().string());
  }
}

DataMixture::DataMixture(TokenDataset only) {
  sources_.push_back(std::move(only));
}

std::string DataMixture::name() const {
  return name_of_sources(sources_.front().path().string(), sources_.size());
}

std::string DataMixture::identity() const {
  std::string text;
  for (const TokenDataset& source : sources_) text += (text.empty() ? "" : " + ") + source.header().identity();
  return text;
}

}  // namespace dekoder
