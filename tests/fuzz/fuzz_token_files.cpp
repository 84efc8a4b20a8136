// SPDX-License-Identifier: Apache-2.0
// Random token shards and token files. Compiled by clang with libFuzzer (Debian: clang, libclang-rt-*-dev), run
// where /dev/shm is, as every input is a file:
//
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Isrc -Itests \
//     -I/usr/include/hdf5/serial tests/fuzz/fuzz_token_files.cpp src/tokenizer/*.cpp src/base/*.cpp
//     src/io/hdf5/*.cpp \
//     src/io/files/*.cpp $(ls src/data/*.cpp | grep -v batch_loader) -L/usr/lib/x86_64-linux-gnu/hdf5/serial -lhdf5
//     \ -lfmt -lutf8proc -lsentencepiece -lcrypto -lxxhash -lz -lzstd -o fuzz_token_files
//   mkdir -p found && TMPDIR=/dev/shm ./fuzz_token_files -max_len=4096 -max_total_time=600 found \
//     tests/fuzz/corpus_token_files
//
// A fault ends it and leaves its input as crash-*; a small one of its kind belongs into
// tests/fuzz/corpus_token_files, which tests/unit/test_token_file_fuzz.cpp replays in every run of the tests.
#include <cstddef>
#include <cstdint>

#include "fuzz/token_files.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static dekoder::fuzz::TokenFileReader reader;
  reader.read({reinterpret_cast<const char*>(data), size});
  return 0;
}
