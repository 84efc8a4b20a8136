// SPDX-License-Identifier: Apache-2.0
// Random files for the readers of tokenizers. Compiled by clang with libFuzzer (Debian: clang, libclang-rt-*-dev):
//
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Isrc -Itests \
//     tests/fuzz/fuzz_tokenizer_files.cpp src/tokenizer/*.cpp src/base/utf8.cpp -lfmt -lutf8proc -o
//     fuzz_tokenizer_files
//   mkdir -p found && ./fuzz_tokenizer_files -max_len=16384 -max_total_time=600 found tests/fuzz/corpus
//
// A fault ends it and leaves its input as crash-*; a small one of its kind belongs into tests/fuzz/corpus, which
// tests/tokenizer/test_fuzz_corpus.cpp replays in every run of the tests.
#include "fuzz/tokenizer_files.hpp"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  dekoder::fuzz::read_and_encode({reinterpret_cast<const char*>(data), size});
  return 0;
}
