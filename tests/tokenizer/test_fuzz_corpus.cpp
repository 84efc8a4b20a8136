// SPDX-License-Identifier: Apache-2.0
// Inputs for the fuzzer of tokenizer files, and those in which it found faults.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "fuzz/tokenizer_files.hpp"
#include "support/source_folder.hpp"

namespace dekoder {
namespace {

TEST(FuzzCorpus, EveryInputIsReadOrRefused) {
  int count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(testing_support::source_folder() / "tests/fuzz/corpus")) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string input{std::istreambuf_iterator<char>(file), {}};
    EXPECT_NO_THROW(fuzz::read_and_encode(input)) << entry.path();
    for (std::size_t size = input.size(); size-- > 0 && input.size() - size < 200;)
      EXPECT_NO_THROW(fuzz::read_and_encode(std::string_view(input).substr(0, size)))
          << entry.path() << ", " << size << " bytes";
    ++count;
  }
  EXPECT_GE(count, 5);
  EXPECT_LE(count, 20);
}

}  // namespace
}  // namespace dekoder
