// SPDX-License-Identifier: Apache-2.0
#include "inference/generated_text.hpp"

#include <gtest/gtest.h>

namespace dekoder {
namespace {

/// The pieces that come of a text byte by byte, and what is left at its end.
struct Said {
  std::vector<std::string> pieces;
  bool stopped = false;
};
Said said(const std::string& text, const std::vector<std::string>& stops) {
  const Tokenizer bytes = Tokenizer::of_bytes();
  GeneratedText generated(bytes, stops);
  Said result;
  for (const char byte : text) {
    result.pieces.push_back(generated.push(Token(static_cast<unsigned char>(byte))));
    if (generated.stopped()) break;
  }
  result.pieces.push_back(generated.finish());
  result.stopped = generated.stopped();
  return result;
}
std::string whole(const Said& said) {
  std::string text;
  for (const std::string& piece : said.pieces) text += piece;
  return text;
}

TEST(GeneratedText, WithoutStopsItIsTheText) {
  EXPECT_EQ(said("It is", {}).pieces, (std::vector<std::string>{"I", "t", " ", "i", "s", ""}));
  EXPECT_FALSE(said("It is", {}).stopped);
}

TEST(GeneratedText, WhatMayBeAStopIsHeldBack) {
  EXPECT_EQ(said("aabaabb", {"aabb"}).pieces, (std::vector<std::string>{"", "", "", "aab", "", "", "", ""}));
  EXPECT_TRUE(said("aabaabb", {"aabb"}).stopped);
  const Said never = said("aabaab", {"aabb"});
  EXPECT_EQ(whole(never), "aabaab");
  EXPECT_EQ(never.pieces.back(), "aab");
  EXPECT_FALSE(never.stopped);
}

TEST(GeneratedText, TheFirstCompleteOneStopsAndOfThoseTheLongest) {
  EXPECT_EQ(whole(said("x abcd", {"abcd", "bc"})), "x a");
  EXPECT_EQ(whole(said("x abc", {"c", "abc", "bc"})), "x ");
  EXPECT_EQ(whole(said("x\n\ny", {"\n\n"})), "x");
  EXPECT_EQ(whole(said("abc", {"abc"})), "");
}

TEST(GeneratedText, CharactersOfSeveralBytesStopToo) {
  EXPECT_EQ(whole(said("caf\u00e9 o\u00e8", {"\u00e9"})), "caf");
  EXPECT_EQ(whole(said("caf\u00e8 o\u00e8", {"\u00e9"})), "caf\u00e8 o\u00e8");  // their first bytes are one
  EXPECT_EQ(whole(said("a\xe2\x82", {"\u20ac"})), "a\uFFFD");                    // the text ends within one
  EXPECT_TRUE(said("a\xe2\x82", {"\uFFFD"}).stopped);
}

}  // namespace
}  // namespace dekoder
