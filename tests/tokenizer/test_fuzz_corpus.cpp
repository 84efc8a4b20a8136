// SPDX-License-Identifier: Apache-2.0
// Inputs for the fuzzer of tokenizer files, and those in which it found faults.
#include <gtest/gtest.h>

#include <string_view>

#include "fuzz/corpus_inputs.hpp"
#include "fuzz/tokenizer_files.hpp"

namespace dekoder {
namespace {

TEST(FuzzCorpus, EveryInputIsReadOrRefused) {
  fuzz::for_each_input("corpus", [](const std::filesystem::path& path, const std::string& input) {
    EXPECT_NO_THROW(fuzz::read_and_encode(input)) << path;
    for (std::size_t size = input.size(); size-- > 0 && input.size() - size < 200;)
      EXPECT_NO_THROW(fuzz::read_and_encode(std::string_view(input).substr(0, size)))
          << path << ", " << size << " bytes";
  });
}

}  // namespace
}  // namespace dekoder
