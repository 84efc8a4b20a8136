// SPDX-License-Identifier: Apache-2.0
// Inputs for the fuzzer of token shards and token files, and those in which it found faults.
#include <gtest/gtest.h>

#include <string_view>

#include "fuzz/corpus_inputs.hpp"
#include "fuzz/token_files.hpp"

namespace dekoder {
namespace {

TEST(TokenFileFuzzCorpus, EveryInputIsReadOrRefused) {
  fuzz::TokenFileReader reader;
  fuzz::for_each_input("corpus_token_files", [&](const std::filesystem::path& path, const std::string& input) {
    for (std::size_t size = input.size() + 1; size-- > 0 && input.size() - size < 20;)
      EXPECT_NO_THROW(reader.read(std::string_view(input).substr(0, size))) << path << ", " << size << " bytes";
  });
}

}  // namespace
}  // namespace dekoder
