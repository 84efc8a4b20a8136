// SPDX-License-Identifier: Apache-2.0
#include "data/data_mixture.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <stdexcept>

#include "base/error.hpp"
#include "base/log.hpp"
#include "data/corpus.hpp"

namespace dekoder {

namespace {

constexpr std::string_view separator = " + ";  // of the identities of a mixture's files

std::vector<std::string> identities_of(std::span<const TokenDataset> sources) {
  std::vector<std::string> identities;
  for (const TokenDataset& source : sources) identities.push_back(source.header().identity());
  return identities;
}

}  // namespace

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
          "the same --tokenizer (`dekoder tokens FILE -o tokenizer.json` writes what a file of bpe has)",
          file.string(), told(source.tokenizer()), files.front().string(), told(tokenizer()));
    const auto same = std::ranges::find_if(sources_, [&](const TokenDataset& earlier) {
      return earlier.header().identity() == source.header().identity();
    });
    if (&*same != &source)
      log_warning("{} is a source of the mixture twice (as {}): its held-out part counts twice", file.string(),
                  same->path().string());
  }
}

DataMixture::DataMixture(TokenDataset only) {
  sources_.push_back(std::move(only));
}

std::string DataMixture::name() const {
  return name_of_sources(sources_.front().path().string(), sources_.size());
}

std::string DataMixture::identity() const {
  return fmt::to_string(fmt::join(identities_of(sources_), separator));
}

std::string DataMixture::difference_from(const std::string& other) const {
  const std::vector<std::string> own = identities_of(sources_);
  std::vector<std::string> others;
  for (std::size_t begin = 0; begin <= other.size();) {
    const std::size_t end = std::min(other.find(separator, begin), other.size());
    others.push_back(other.substr(begin, end - begin));
    begin = end + separator.size();
  }
  if (own == others) return {};
  if (std::ranges::is_permutation(own, others)) return "they are the same files in another order";
  std::string text;
  if (own.size() != others.size()) text = fmt::format("{} files, expected {}; ", own.size(), others.size());
  const std::size_t first = std::size_t(std::ranges::mismatch(own, others).in1 - own.begin());
  if (first == own.size()) return text + "the last ones are missing";
  if (first == others.size()) return text + sources_[first].path().string() + " is not among them";
  return text + fmt::format("{}: sha256/training tokens: got {}, expected {}", sources_[first].path().string(),
                            own[first], others[first]);
}

}  // namespace dekoder
