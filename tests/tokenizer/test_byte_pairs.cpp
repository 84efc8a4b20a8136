// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/byte_pairs.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "base/error.hpp"
#include "support/scratch_folder.hpp"
#include "tokenizer/byte_pair_files.hpp"

namespace dekoder {
namespace {

using testing_support::message_of;

/// All bytes by their values, then these texts.
BytePairs pairs_of(const std::vector<std::string>& texts, std::vector<BytePair> merges, bool whole_pieces = false) {
  std::vector<std::string> all;
  for (int byte = 0; byte < 256; ++byte) all.emplace_back(1, static_cast<char>(byte));
  all.insert(all.end(), texts.begin(), texts.end());
  return {std::move(all), std::move(merges), whole_pieces, {}, "here"};
}

std::vector<Token> encoded(const BytePairs& pairs, std::string_view piece) {
  std::vector<Token> tokens;
  pairs.encode(piece, tokens);
  return tokens;
}

TEST(BytePairs, TheFirstPairOfTheListMergesFirstAndFromTheLeft) {
  const BytePairs pairs = pairs_of({"bc", "ab", "abc", "aa"}, {{'b', 'c'}, {'a', 'b'}, {257, 'c'}, {'a', 'a'}});
  EXPECT_EQ(encoded(pairs, "abc"), (std::vector<Token>{'a', 256}));
  EXPECT_EQ(encoded(pairs, "abab"), (std::vector<Token>{257, 257}));
  EXPECT_EQ(encoded(pairs, "aaa"), (std::vector<Token>{259, 'a'}));
  EXPECT_EQ(encoded(pairs, ""), (std::vector<Token>{}));
  EXPECT_EQ(encoded(pairs_of({"bc", "ab", "abc"}, {{'b', 'c'}, {'a', 'b'}, {257, 'c'}}, true), "abc"),
            (std::vector<Token>{258}));  // the whole piece is a token
}

/// Long pieces go another way, which must cut them as the short one does.
TEST(BytePairs, LongPiecesAreMergedAsShortOnesAre) {
  const BytePairs pairs =
      pairs_of({"ab", "ba", "abab", "aab", "ababab"}, {{'a', 'b'}, {'b', 'a'}, {256, 256}, {'a', 256}, {258, 256}});
  std::uint32_t state = 1;
  for (int round = 0; round < 200; ++round) {
    std::string part;  // ends in a character that merges with nothing: parts of 100 bytes are their own
    for (int i = 0; i < 99; ++i) part += "abc"[(state = state * 1664525 + 1013904223) >> 24 & 1];
    part += 'x';
    std::vector<Token> expected;
    std::string whole;
    for (int i = 0; i < 5; ++i) {
      whole += part;
      pairs.encode(part, expected);
    }
    ASSERT_EQ(encoded(pairs, whole), expected) << part;
  }
}

TEST(BytePairs, DamagedListsAreRefused) {
  const auto refused = [](const std::vector<std::string>& texts, std::vector<BytePair> merges) {
    return message_of<DataError>([&] { pairs_of(texts, std::move(merges)); });
  };
  EXPECT_EQ(refused({"ab", "ab"}, {}), "here: tokens 256 and 257 both stand for 'ab'; expected each text once");
  EXPECT_EQ(refused({"ab"}, {{'a', 'b'}, {'a', 'b'}}),
            "here: merge 1 is the same as merge 0, of 'a' and 'b'; expected each once");
  EXPECT_EQ(refused({"ab"}, {{'a', 'c'}}), "here: merge 0 joins 'a' and 'c' to a text that no token stands for");
  EXPECT_EQ(message_of<DataError>([] { BytePairs({"a"}, {}, false, {}, "here"); }),
            "here: no token stands for the byte 0x00; expected one for each of the 256");
}

}  // namespace
}  // namespace dekoder
