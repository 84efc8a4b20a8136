// SPDX-License-Identifier: Apache-2.0
// Inputs for the fuzzer of token shards and token files, and those in which it found faults.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "fuzz/token_files.hpp"
#include "support/source_folder.hpp"

namespace dekoder {
namespace {

TEST(TokenFileFuzzCorpus, EveryInputIsReadOrRefused) {
  fuzz::TokenFileReader reader;
  int count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(testing_support::source_folder() / "tests/fuzz/corpus_token_files")) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string input{std::istreambuf_iterator<char>(file), {}};
    for (std::size_t size = input.size() + 1; size-- > 0 && input.size() - size < 20;)
      EXPECT_NO_THROW(reader.read(std::string_view(input).substr(0, size)))
          << entry.path() << ", " << size << " bytes";
    ++count;
  }
  EXPECT_GE(count, 5);
  EXPECT_LE(count, 20);
}

}  // namespace
}  // namespace dekoder
