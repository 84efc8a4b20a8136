// SPDX-License-Identifier: Apache-2.0
// Ids by Hugging Face's tokenizers and OpenAI's tiktoken (make_fixtures.py), which must be met exactly.
#include <gtest/gtest.h>
#include <time.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "support/source_folder.hpp"
#include "tokenizer/byte_pair_files.hpp"
#include "tokenizer/tokenizer.hpp"
#include "tokenizer/tokenizer_json.hpp"

namespace dekoder {
namespace {

std::string content(const std::string& name) {
  const auto path = testing_support::source_folder() / "tests/tokenizer/fixtures" / name;
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Case {
  std::string name, text;
  SpecialTokens special;
  std::vector<Token> ids;
};

std::vector<Case> cases(const char* tokenizer) {
  static const nlohmann::json all = nlohmann::json::parse(content("texts.json"));
  std::vector<Case> made;
  for (const auto& entry : all)
    made.push_back({entry["name"], entry["text"],
                    entry["special"] ? SpecialTokens::recognised : SpecialTokens::as_text, entry[tokenizer]});
  EXPECT_GE(made.size(), 100u);
  return made;
}

std::vector<Token> encoded(BytePairEncoder& encoder, std::string_view text,
                           SpecialTokens special = SpecialTokens::recognised) {
  std::vector<Token> tokens;
  encoder.encode(text, special, tokens);
  return tokens;
}

std::string decoded(const BytePairTokenizer& tokenizer, const std::vector<Token>& tokens) {
  std::string text;
  for (const Token token : tokens) text += tokenizer.pairs().text(token);
  return text;
}

/// The ids of every text, twice by one encoder: the second time most pieces are known to it.
void expect_ids(const BytePairTokenizer& tokenizer, const char* name) {
  BytePairEncoder encoder(tokenizer);
  for (int round = 0; round < 2; ++round)
    for (const Case& c : cases(name)) ASSERT_EQ(encoded(encoder, c.text, c.special), c.ids) << c.name;
}

class Fixtures : public testing::TestWithParam<const char*> {
 protected:
  std::string json_ = content(std::string(GetParam()) + ".json");
  BytePairTokenizer tokenizer_ = read_tokenizer_json(json_, GetParam());
};

TEST_P(Fixtures, IdsAreThoseOfTheLibraries) {
  EXPECT_STREQ(split_pattern_name(tokenizer_.pattern()), GetParam());
  expect_ids(tokenizer_, GetParam());
}

TEST_P(Fixtures, TextsComeBack) {
  for (const Case& c : cases(GetParam())) {
    const std::string back = decoded(tokenizer_, c.ids);
    if (!tokenizer_.composes()) {
      ASSERT_EQ(back, c.text) << c.name;
      continue;
    }
    BytePairEncoder encoder(tokenizer_);  // NFC of NFC is the same
    ASSERT_EQ(encoded(encoder, back, c.special), c.ids) << c.name;
  }
}

TEST_P(Fixtures, WhatIsWrittenIsReadAsTheSame) {
  const std::string written = write_tokenizer_json(tokenizer_);
  const BytePairTokenizer read = read_tokenizer_json(written, "written");
  EXPECT_EQ(read, tokenizer_);
  EXPECT_EQ(write_tokenizer_json(read), written);
  expect_ids(read, GetParam());
  const Tokenizer whole = Tokenizer::of_byte_pairs(tokenizer_);
  EXPECT_EQ(Tokenizer::from_text(whole.to_text(), "here"), whole);
}

TEST_P(Fixtures, PartsCutAtTheLastSafePlaceHaveTheIdsOfTheWhole) {
  BytePairEncoder encoder(tokenizer_);
  int cuts = 0;
  std::string all;  // neighbours meet, with and without a line end between them
  for (const Case& c : cases(GetParam())) all += c.text + (all.size() % 2 == 0 ? "\n" : "");
  const std::vector<Token> whole = encoded(encoder, all);
  for (const std::size_t step : {std::size_t(997), std::size_t(10007), all.size()}) {
    std::vector<Token> tokens;
    for (std::size_t at = 0; at < all.size();) {
      std::size_t end = std::min(at + step, all.size()), cut = 0;
      while (end < all.size() && (cut = last_safe_cut(std::string_view(all).substr(at, end - at))) == 0)
        end = std::min(end + step, all.size());
      if (cut > 0) end = at + cut;
      cuts += cut > 0;
      encoder.encode(std::string_view(all).substr(at, end - at), SpecialTokens::recognised, tokens);
      at = end;
    }
    ASSERT_EQ(tokens, whole) << step;
  }
  EXPECT_GT(cuts, 3);
  for (const Case& c : cases(GetParam())) {  // every safe place, from the last to the first
    const std::vector<Token> ids = encoded(encoder, c.text, c.special);
    for (std::size_t cut = c.text.size(); (cut = last_safe_cut(std::string_view(c.text).substr(0, cut))) > 0;) {
      std::vector<Token> tokens = encoded(encoder, std::string_view(c.text).substr(0, cut), c.special);
      encoder.encode(std::string_view(c.text).substr(cut), c.special, tokens);
      ASSERT_EQ(tokens, ids) << c.name << ", cut at " << cut;
    }
  }
}

/// Neither library takes bytes that are no UTF-8.
TEST_P(Fixtures, RandomBytesComeBack) {
  std::mt19937 random(5);
  BytePairEncoder encoder(tokenizer_);
  for (int round = 0; round < 300; ++round) {
    std::string text(random() % 3000, '\0');
    for (char& byte : text)  // three of four rounds: a lead byte or a continuation byte is likely
      byte = static_cast<char>(round % 4 == 0 ? random()
                                              : "\xE4\xBA\xF0\x9F\x98\xC3\xA9 \n\xFF\xCC\x81"
                                                "a'"[random() % 14]);
    const std::string back = decoded(tokenizer_, encoded(encoder, text, SpecialTokens::as_text));
    if (tokenizer_.composes())
      ASSERT_EQ(decoded(tokenizer_, encoded(encoder, back, SpecialTokens::as_text)), back);
    else
      ASSERT_EQ(back, text);
  }
}

/// Of this thread: what else the machine does counts little.
double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

/// Work of n log n: four times the bytes take less than ten times the CPU time (sixteen times where it is n^2).
TEST_P(Fixtures, MegabytesWithoutASpace) {
  std::mt19937 random(6);
  std::string text;
  while (text.size() < (1 << 20)) text += "aeinorst"[random() % 8];
  BytePairEncoder encoder(tokenizer_);
  const auto seconds = [&](std::string_view part) {
    const double begin = cpu_seconds();
    const std::vector<Token> tokens = encoded(encoder, part);
    const double used = cpu_seconds() - begin;
    EXPECT_EQ(decoded(tokenizer_, tokens), part);
    return used;
  };
  const auto best = [&](std::string_view part) { return std::min({seconds(part), seconds(part), seconds(part)}); };
  const double quarter = best(std::string_view(text).substr(0, text.size() / 4)), whole = best(text);
  EXPECT_LT(whole, 10 * quarter + 0.05);
}

INSTANTIATE_TEST_SUITE_P(All, Fixtures, testing::Values("gpt2", "cl100k", "qwen2"));

TEST(FixtureFiles, Gpt2sTwoFilesGiveTheSameTokenizer) {
  const BytePairTokenizer expected = read_tokenizer_json(content("gpt2.json"), "gpt2.json");
  const std::string merges = content("gpt2.bpe");
  EXPECT_EQ(read_merges(merges, "gpt2.bpe", content("gpt2_encoder.json"), "gpt2_encoder.json"), expected);
  EXPECT_EQ(read_merges(merges, "gpt2.bpe"), expected);  // ids by their order
  expect_ids(read_merges(merges, "gpt2.bpe"), "gpt2");
}

TEST(FixtureFiles, TiktokensRanksGiveTheSameIds) {
  const BytePairTokenizer ranks =
      read_tiktoken_ranks(content("cl100k.tiktoken"), SplitPattern::cl100k, "cl100k.tiktoken");
  const BytePairTokenizer expected = read_tokenizer_json(content("cl100k.json"), "cl100k.json");
  EXPECT_EQ(ranks.pairs().merges(), expected.pairs().merges());
  BytePairEncoder encoder(ranks);
  for (const Case& c : cases("cl100k"))
    if (c.special == SpecialTokens::as_text ||
        c.text.find("<|") == std::string::npos) {  // it has its own special token
      ASSERT_EQ(encoded(encoder, c.text, SpecialTokens::as_text), c.ids) << c.name;
    }
  EXPECT_EQ(ranks.end_of_text(), ranks.pairs().size() - 1);
}

}  // namespace
}  // namespace dekoder
