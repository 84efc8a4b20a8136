// SPDX-License-Identifier: Apache-2.0
// Damaged, foreign and hostile files: each ends in one DataError of one line that begins with the file's name.
#include "tokenizer/tokenizer_json.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/base64.hpp"
#include "base/error.hpp"
#include "support/scratch_folder.hpp"
#include "support/source_folder.hpp"
#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/byte_pair_files.hpp"

namespace dekoder {
namespace {

using Json = nlohmann::json;
using testing_support::message_of;

std::string fixture(const std::string& name) {
  std::ifstream file(testing_support::source_folder() / "tests/tokenizer/fixtures" / name, std::ios::binary);
  EXPECT_TRUE(file) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The message of what `read` throws, in the form that all have.
template <class Read>
std::string refused(Read&& read) {
  const std::string message = message_of<DataError>(read);
  EXPECT_TRUE(message.starts_with("here")) << message;
  EXPECT_EQ(message.find_first_of("\n\r\t"), std::string::npos) << message;
  EXPECT_LE(message.size(), 700u) << message;
  EXPECT_GE(message.size(), 20u) << message;
  return message;
}

std::string refused_text(std::string_view text) {
  return refused([&] { read_tokenizer_json(text, "here"); });
}

/// 256 bytes, "ab" and "abc", and an added token.
Json small() {
  Json vocab;
  for (Token token = 0; token < 256; ++token)
    vocab[in_byte_alphabet(std::string(1, static_cast<char>(byte_alphabet().in_order[std::size_t(token)])))] =
        token;
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  return {{"version", "1.0"},
          {"added_tokens",
           {{{"id", 258},
             {"content", "<|endoftext|>"},
             {"single_word", false},
             {"lstrip", false},
             {"rstrip", false},
             {"normalized", false},
             {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab c"}}}}};
}

/// `small` with the member at a JSON pointer changed.
Json with(const char* place, Json value) {
  Json document = small();
  document[Json::json_pointer(place)] = std::move(value);
  return document;
}

BytePairTokenizer read(const Json& document) {
  return read_tokenizer_json(document.dump(), "here");
}

std::vector<Token> encoded(const BytePairTokenizer& tokenizer, std::string_view text) {
  std::vector<Token> tokens;
  BytePairEncoder(tokenizer).encode(text, SpecialTokens::recognised, tokens);
  return tokens;
}

void expect_written_is_read(const BytePairTokenizer& tokenizer) {
  EXPECT_EQ(read_tokenizer_json(write_tokenizer_json(tokenizer), "written"), tokenizer);
}

/// Expects that the document is refused with a message that has `part`.
void expect_refused(const Json& document, std::string_view part) {
  const std::string message = refused_text(document.dump());
  EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks: " << part;
}

TEST(TokenizerJson, TheSmallOneIsGood) {
  EXPECT_EQ(encoded(read(small()), "abcab<|endoftext|>"), (std::vector<Token>{257, 256, 258}));
  EXPECT_EQ(read(small()), read(with("/model/merges", Json::parse(R"([["a", "b"], ["ab", "c"]])"))));
}

TEST(TokenizerJson, CutShortAnywhere) {
  for (const char* name : {"gpt2.json", "cl100k.json", "qwen2.json"}) {
    std::string text = fixture(name);
    text.resize(text.find_last_of('}'));
    for (std::size_t size = 0; size <= text.size(); size += size < 100 ? 1 : 100)
      EXPECT_NE(refused_text(std::string_view(text).substr(0, size)).find("is no JSON"), std::string::npos) << size;
    refused_text(text);
  }
}

TEST(TokenizerJson, NoJson) {
  for (const std::string& text :
       {std::string(""), std::string(" "), std::string("\0", 1), std::string("\xEF\xBB\xBF"), std::string("x"),
        std::string("{}{}"), std::string("{\"model\": 1e999}"), std::string("{\"a\": \"\xFF\"}"),
        std::string("{\"\xC3\": 1}"), std::string("{\"a\": \"\\uD800\"}"), std::string("{\"a\": \"\n\"}"),
        std::string("{'a': 1}"), std::string("{\"a\": 1,}"), std::string("NaN")})
    EXPECT_NE(refused_text(text).find("is no JSON"), std::string::npos) << text;
  for (const char* text : {"[]", "1", "null", "true", "\"text\"", "[{}]"})
    EXPECT_NE(refused_text(text).find("is no object"), std::string::npos) << text;
  for (const std::string open : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 100000; ++i) deep += open;
    EXPECT_NE(refused_text(deep).find("nests deeper than 32"), std::string::npos);
    EXPECT_NE(refused_text("{\"model\": " + deep).find("nests deeper than 32"), std::string::npos);
  }
}

/// `tokenizers` refuses it too.
TEST(TokenizerJson, AByteOrderMarkIsRefusedByName) {
  EXPECT_EQ(
      refused_text("\xEF\xBB\xBF" + small().dump()),
      "here: begins with a byte order mark (UTF-8), which is no JSON; expected a tokenizer.json, in UTF-8 without "
      "one");
  EXPECT_NE(refused_text(std::string("\xFF\xFE{\0}\0", 6)).find("byte order mark (UTF-16)"), std::string::npos);
}

TEST(TokenizerJson, AKeyTwice) {
  const std::string text = small().dump();
  EXPECT_NE(refused_text("{\"model\": 1, " + text.substr(1)).find("has the key 'model' twice"), std::string::npos);
  std::string inner = text;
  inner.replace(inner.find("\"abc\":257"), 9, "\"ab\":257");
  EXPECT_NE(refused_text(inner).find("has the key 'ab' twice"), std::string::npos);
  inner.replace(inner.find("\"ab\":257"), 8, "\"\\u0061b\":257");  // the same text, spelt otherwise
  EXPECT_NE(refused_text(inner).find("has the key 'ab' twice"), std::string::npos);
}

TEST(TokenizerJson, Ids) {
  const std::pair<const char*, const char*> ids[] = {{"2147483648", "expected a token"},
                                                     {"2147483647", "expected a token"},
                                                     {"16777216", "expected a token"},
                                                     {"4294967296", "expected a token"},
                                                     {"4294967553", "expected a token"},  // 257 in 32 bits
                                                     {"9223372036854775808", "expected a token"},
                                                     {"18446744073709551615", "expected a token"},
                                                     {"18446744073709551873", "expected a token"},
                                                     {"-1", "expected a token"},
                                                     {"-9223372036854775808", "expected a token"},
                                                     {"257.0", "expected a token"},
                                                     {"2.57e2", "expected a token"},
                                                     {"\"257\"", "expected a token"},
                                                     {"null", "expected a token"},
                                                     {"true", "expected a token"},
                                                     {"[257]", "expected a token"},
                                                     {"256", "token 256 is"},
                                                     {"258", "token 258 is '<|endoftext|>' and 'abc'"},
                                                     {"259", "expected ids from 0 without holes"},
                                                     {"16777215", "expected ids from 0 without holes"}};
  const std::string text = small().dump();
  for (const auto& [id, expected] : ids) {
    std::string changed = text;
    changed.replace(changed.find("\"abc\":257") + 6, 3, id);
    EXPECT_NE(refused_text(changed).find(expected), std::string::npos) << id << ": " << refused_text(changed);
    changed = text;
    changed.replace(changed.find("\"id\":258") + 5, 3, id);
    if (std::string(id) != "258") {
      refused_text(changed);
    }
  }
  Json hole = small();
  hole["model"]["vocab"].erase("abc");
  hole["model"]["merges"].erase(1);
  expect_refused(hole, "'<|endoftext|>' is token 258, but there are 258 at most");
  Json inner = with("/model/vocab/<|endoftext|>", 258);  // in both lists
  inner["model"]["merges"].erase(1);
  EXPECT_EQ(read(inner).pairs().size(), 259);
  inner["model"]["vocab"].erase("abc");
  expect_refused(inner, "token 257 has no text");
  expect_refused(with("/model/vocab/<|endoftext|>", 259), "258 in added_tokens");
}

TEST(TokenizerJson, VocabularyAndBytes) {
  Json document = small();
  document["model"]["vocab"].erase("\u0120");
  document["model"]["vocab"]["zz"] = 220;  // the blank's
  expect_refused(document, "no token stands for the byte 0x20");
  expect_refused(with("/model/vocab/a b", 259), "'a b'] is not in GPT-2's alphabet");
  expect_refused(with("/model/vocab/\u4eba", 259), "is not in GPT-2's alphabet");
  expect_refused(with("/model/vocab", Json::object()), "'<|endoftext|>' is token 258, but there are 1 at most");
  expect_refused(with("/model/vocab", Json::array()), "model.vocab is []; expected an object");
  Json empty = with("/model/vocab", Json::object());
  empty["added_tokens"] = Json::array();
  empty["model"]["merges"] = Json::array();
  expect_refused(empty, "no token stands for the byte 0x00");
}

TEST(TokenizerJson, Merges) {
  const auto merges = [](Json list) { return with("/model/merges", std::move(list)); };
  expect_refused(merges({"a b", "ab c", "a b"}), "here: merge 2 is the same as merge 0, of 'a' and 'b'");
  expect_refused(merges({"a b", {"ab", "c"}, {"a", "b"}}), "merge 2 is the same as merge 0");
  expect_refused(merges({"a b", "ab xy"}), "model.merges[1]: 'xy' is no token of model.vocab");
  expect_refused(merges({"a c"}), "merge 0 joins 'a' and 'c'");
  for (const char* text : {"", "a", "ab", "a b c", "a  b", "a b ", "\u0120a"})
    expect_refused(merges({text}), "merges[0]");
  expect_refused(merges({"a\tb"}), "two tokens with a space between them");
  expect_refused(merges({{"a"}}), "two tokens");
  expect_refused(merges({{"a", "b", "c"}}), "two tokens");
  expect_refused(merges({Json::array()}), "two tokens");
  expect_refused(merges(Json::parse(R"([["a", 1]])")), "merges[0][1] is 1; expected a text");
  expect_refused(merges(Json::parse(R"([["a", ["b", "c"]]])")), "expected a text");
  for (const Json& entry : {Json(1), Json(nullptr), Json(true), Json::object()})
    expect_refused(merges({entry}), "merges[0] is");
  // neither each other's parts in a circle, nor a pair before its parts, is anything to fear
  expect_refused(merges({"abc ab", "ab abc"}), "a text that no token stands for");
  EXPECT_EQ(encoded(read(merges({"ab c", "a b"})), "abc"), (std::vector<Token>{257}));
  EXPECT_EQ(encoded(read(merges(Json::array())), "abc").size(), 3u);
  expect_refused(merges({"<|endoftext|> a"}), "is no token of model.vocab");
  for (const Json& list : {Json(nullptr), Json("a b"), Json(1), Json::object()})
    expect_refused(merges(list), "model.merges is");
}

TEST(TokenizerJson, EveryMemberOfTheWrongKind) {
  Json document = small();
  document["model"]["dropout"] = nullptr;
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"})
    document["model"][key] = nullptr;
  document["normalizer"] = {{"type", "NFC"}};
  document["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern", {{"Regex", split_pattern_regex(SplitPattern::qwen2)}}},
         {"behavior", "Isolated"},
         {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}}}};
  EXPECT_EQ(read(document).pattern(), SplitPattern::qwen2);
  const Json wrong[] = {
      -3, 1.5, "", "text", Json::array(), {1, "a"}, Json::object(), {{"type", 1}}, {{"a", {{"b", "c"}}}}};
  const Json flat = document.flatten();
  int changed = 0;
  std::vector<std::string> places;
  for (const auto& [place, value] : flat.items())
    if (!place.starts_with("/model/vocab/") || place == "/model/vocab/ab") places.push_back(place);
  for (const char* place :
       {"/added_tokens", "/added_tokens/0", "/normalizer", "/pre_tokenizer", "/pre_tokenizer/pretokenizers",
        "/pre_tokenizer/pretokenizers/0", "/pre_tokenizer/pretokenizers/1",
        "/pre_tokenizer/pretokenizers/0/pattern", "/model", "/model/vocab", "/model/merges"})
    places.push_back(place);
  for (const std::string& place : places) {
    if (place == "/version" || place.ends_with("trim_offsets")) continue;  // not read
    for (const Json& value : wrong) {
      if (value == "text" && place.ends_with("/content")) continue;  // a text is right here
      if (value == "" && (place.ends_with("prefix") || place.ends_with("suffix"))) continue;
      if (value == Json::array() && (place == "/added_tokens" || place == "/model/merges")) continue;
      Json broken = document;
      broken[Json::json_pointer(place)] = value;
      SCOPED_TRACE(place + " = " + value.dump());
      refused_text(broken.dump());
      ++changed;
    }
  }
  EXPECT_GT(changed, 200);
  for (const char* place :
       {"/added_tokens/0/id", "/added_tokens/0/content", "/pre_tokenizer", "/pre_tokenizer/type", "/model",
        "/model/vocab", "/model/merges", "/pre_tokenizer/pretokenizers/0/pattern",
        "/pre_tokenizer/pretokenizers/0/behavior", "/pre_tokenizer/pretokenizers/0/type",
        "/pre_tokenizer/pretokenizers/1/add_prefix_space", "/pre_tokenizer/pretokenizers/1/use_regex"}) {
    const Json::json_pointer pointer(place);
    Json broken = document;
    broken[pointer.parent_pointer()].erase(pointer.back());
    SCOPED_TRACE(place);
    refused_text(broken.dump());
  }
}

TEST(TokenizerJson, OtherKindsAreRefusedByName) {
  for (const char* type : {"Unigram", "WordPiece", "WordLevel"}) {
    expect_refused(with("/model/type", type), std::string("model.type is \"") + type + "\"; expected BPE");
    expect_refused(with("/model", {{"type", type}, {"vocab", Json::array({{"a", -1.5}})}, {"unk_id", 0}}), type);
  }
  for (const char* type :
       {"NFD", "NFKC", "NFKD", "Lowercase", "Replace", "Prepend", "BertNormalizer", "Precompiled", "StripAccents"})
    expect_refused(with("/normalizer", {{"type", type}}), std::string("normalizer.type is \"") + type + "\"");
  expect_refused(
      with("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "Strip"}}}}}),
      "Sequence");
  expect_refused(with("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "NFKC"}}}}}), "NFKC");
  for (const char* type :
       {"BertPreTokenizer", "Metaspace", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "Split"})
    expect_refused(with("/pre_tokenizer", {{"type", type}}), std::string("pre_tokenizer.type is \"") + type + "\"");
  const auto sequence = [](Json split, Json bytes) {
    return with("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {std::move(split), std::move(bytes)}}});
  };
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const auto split = [](const char* pattern, const char* behavior, bool invert) {
    return Json{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", behavior}, {"invert", invert}};
  };
  const char* known = split_pattern_regex(SplitPattern::cl100k);
  EXPECT_EQ(read(sequence(split(known, "Isolated", false), bytes)).pattern(), SplitPattern::cl100k);
  expect_refused(sequence(split("\\s+", "Isolated", false), bytes), "the pattern of GPT-2");
  expect_refused(sequence(split(known, "Removed", false), bytes), "expected Isolated");
  expect_refused(sequence(split(known, "Isolated", true), bytes), "invert is true");
  expect_refused(sequence({{"type", "Digits"}, {"individual_digits", true}}, bytes), "Digits");
  expect_refused(sequence(split(known, "Isolated", false), {{"type", "Metaspace"}}), "Metaspace");
  expect_refused(with("/pre_tokenizer/add_prefix_space", true), "add_prefix_space is true; expected false");
  expect_refused(with("/pre_tokenizer/use_regex", false), "use_regex is false");
  expect_refused(with("/model/dropout", 0.1), "dropout is 0.1");
  expect_refused(with("/model/byte_fallback", true), "byte_fallback is true");
  expect_refused(with("/model/continuing_subword_prefix", "##"), "continuing_subword_prefix is \"##\"");
  expect_refused(with("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix is \"</w>\"");
  for (const char* flag : {"lstrip", "rstrip", "single_word"})
    expect_refused(with((std::string("/added_tokens/0/") + flag).c_str(), true),
                   std::string(flag) + " is true; expected false");
}

TEST(TokenizerJson, AddedTokensThatNothingCanBe) {
  Json document = small();
  document["added_tokens"][0]["content"] = "";
  expect_refused(document, "the added token 258 is ''");
  document = small();
  document["added_tokens"].push_back(document["added_tokens"][0]);
  expect_refused(document, "token 258 is '<|endoftext|>' and '<|endoftext|>'");
  document["added_tokens"][1]["id"] = 259;
  expect_refused(document, "the added token 259 is '<|endoftext|>'");
}

/// Texts that are cut there would have other tokens than the whole.
TEST(TokenizerJson, AddedTokensAcrossASafeCutAreRefused) {
  for (const char* text : {"a\n", "<Z\n>", "\n\nz\n"}) {
    Json document = small();
    document["added_tokens"][0]["content"] = text;
    expect_refused(document, "expected no line feed behind a letter");
  }
  for (const char* text : {"\n", "\na", "\n\n", "a \n", "1\n", "\u00e9\n"}) {
    Json document = small();
    document["added_tokens"][0]["content"] = text;
    const std::string around = std::string("a") + text + "\na";
    EXPECT_EQ(encoded(read(document), around)[1], 258) << text;
  }
}

/// CodeGen and Phi have added tokens of blanks beside those that their merges make.
TEST(TokenizerJson, AnAddedTokenMayHaveTheBytesOfAnother) {
  Json document = small();
  document["model"]["vocab"]["\u0120\u0120"] = 258;
  document["model"]["vocab"]["\u0120\u0120\u0120"] = 260;
  document["model"]["merges"] = {"\u0120 \u0120", "\u0120 \u0120\u0120", "a b", "ab c"};
  document["added_tokens"][0] = {{"id", 259}, {"content", "  "}, {"special", false}};
  const BytePairTokenizer tokenizer = read(document);
  EXPECT_EQ(encoded(tokenizer, "  "), (std::vector<Token>{259}));
  EXPECT_EQ(tokenizer.pairs().merges()[0], (BytePair{220, 220}));
  std::vector<Token> tokens;
  tokenizer.pairs().encode("  ", tokens);
  EXPECT_EQ(tokens, (std::vector<Token>{258}));
  expect_written_is_read(tokenizer);
}

/// A byte may be an added token too, and one that merges make.
TEST(TokenizerJson, AddedTokensOfTheVocabulary) {
  Json document = small();
  document["added_tokens"].push_back({{"id", 0}, {"content", "!"}, {"special", true}});
  document["added_tokens"].push_back({{"id", 257}, {"content", "abc"}, {"special", true}});
  const BytePairTokenizer tokenizer = read(document);
  EXPECT_EQ(encoded(tokenizer, "a!abc"), (std::vector<Token>{64, 0, 257}));
  std::vector<Token> tokens;
  BytePairEncoder(tokenizer).encode("a!abc", SpecialTokens::as_text, tokens);
  EXPECT_EQ(tokens, (std::vector<Token>{64, 0, 257}));
  expect_written_is_read(tokenizer);
}

/// Those that are to be normalized are looked for in what the others leave over.
TEST(TokenizerJson, NormalizedAddedTokensComeSecond) {
  Json document = with("/normalizer", {{"type", "NFC"}});
  document["added_tokens"].push_back({{"id", 259}, {"content", "x<"}, {"special", false}, {"normalized", true}});
  document["added_tokens"].push_back(
      {{"id", 260}, {"content", "e\u0301"}, {"special", false}, {"normalized", true}});
  document["added_tokens"].push_back(
      {{"id", 261}, {"content", "a\u0308"}, {"special", false}, {"normalized", false}});
  const BytePairTokenizer tokenizer = read(document);
  EXPECT_EQ(encoded(tokenizer, "x<|endoftext|>x<"), (std::vector<Token>{87, 258, 259}));
  EXPECT_EQ(encoded(tokenizer, "\u00e9e\u0301"), (std::vector<Token>{260, 260}));
  EXPECT_EQ(encoded(tokenizer, "a\u0308\u00e4").size(), 3u);  // only as it is written
  expect_written_is_read(tokenizer);
}

std::string refused_ranks(std::string_view text) {
  return refused([&] { read_tiktoken_ranks(text, SplitPattern::cl100k, "here"); });
}

TEST(TiktokenRanks, DamagedFiles) {
  const std::string good = fixture("cl100k.tiktoken");
  EXPECT_GT(read_tiktoken_ranks(good, SplitPattern::cl100k, "here").pairs().size(), 500);
  std::string windows = good;
  for (std::size_t at = 0; (at = windows.find('\n', at)) != std::string::npos; at += 2) windows.insert(at, "\r");
  EXPECT_EQ(read_tiktoken_ranks(windows + "\r\n\n", SplitPattern::cl100k, "here"),
            read_tiktoken_ranks(good, SplitPattern::cl100k, "here"));
  std::size_t lines = 0;
  for (std::size_t size = 0; size < good.size(); size += 100) {
    const std::string cut = good.substr(0, size);
    lines = std::size_t(std::count(cut.begin(), cut.end(), '\n'));
    if (lines < 256) {
      refused_ranks(cut);
    } else {  // a whole file of fewer tokens, or a line that is none
      EXPECT_TRUE(message_of<DataError>([&] { read_tiktoken_ranks(cut, SplitPattern::cl100k, "here"); }).size() <
                  300);
    }
  }
  EXPECT_EQ(refused_ranks(to_base64(std::string(1025, 'a')) + " 0\n"),
            "here:1: rank 0 has 1025 bytes; expected at most 1024");
  EXPECT_EQ(refused_ranks(""), "here: no token stands for the byte 0x00; expected one for each of the 256");
  for (const char* line : {"IQ==",
                           "IQ== ",
                           " 0",
                           "IQ==\t0",
                           "IQ== 0x0",
                           "IQ== -0",
                           "IQ== +0",
                           "IQ== 0 ",
                           "IQ==  0",
                           "IQ== 0.0",
                           "IQ 0",
                           "IQ= 0",
                           "I=== 0",
                           "==== 0",
                           "IR== 0",
                           "I!== 0",
                           "IQ==IQ== 0",
                           "IQ== a",
                           "\xFF\xFF== 0",
                           "{} 0",
                           "IQ== 18446744073709551616",
                           "IQ== 99999999999999999999"})
    EXPECT_EQ(refused_ranks(line).find("here:1: '"), 0u) << refused_ranks(line);
  for (const char* rank : {"1", "2147483648", "9223372036854775808", "18446744073709551615"})
    EXPECT_EQ(refused_ranks(std::string("IQ== ") + rank),
              std::string("here:1: rank ") + rank + "; expected 0: ranks ascend from 0 without holes");
  EXPECT_NE(refused_ranks("IQ== 0\nIQ== 1\n").find("here:2: rank 1 has the bytes of an earlier one"),
            std::string::npos);
  EXPECT_NE(refused_ranks("IQ== 0\nIg== 0\n").find("here:2: rank 0; expected 1"), std::string::npos);
}

TEST(Merges, DamagedFiles) {
  const auto refused_merges = [](std::string_view merges, std::optional<std::string_view> vocabulary = {}) {
    return refused([&] { read_merges(merges, "here", vocabulary, "here.json"); });
  };
  const std::string good = fixture("gpt2.bpe"), vocabulary = fixture("gpt2_encoder.json");
  for (std::size_t size = 100; size < vocabulary.size() - 2; size += 100)
    EXPECT_NE(refused_merges(good, vocabulary.substr(0, size)).find("here.json: is no JSON"), std::string::npos);
  for (std::size_t size = 0; size < good.size(); size += 100)  // fewer merges, or half of one
    EXPECT_LT(message_of<DataError>([&] { read_merges(good.substr(0, size), "here"); }).size(), 300u);
  for (const char* line : {"ab", "a ", " b", "a b c", "a  b", "a b ", " ", "#version: 0.2\na"})
    EXPECT_NE(refused_merges(line).find("expected two tokens with a space between them"), std::string::npos)
        << line;
  for (const char* line : {"ab c", "a b\nc ab\nabc d", "a \u4eba", "a \x01", "\xFF a", "a b\nba c"})
    EXPECT_NE(refused_merges(line).find("is neither a byte nor what a merge before it makes"), std::string::npos)
        << line;
  EXPECT_EQ(refused_merges("a b\n\nc d\na b"),
            "here:4: the merge is the same as that in line 1, of 'a' and 'b'; expected each once");
  EXPECT_EQ(refused_merges("#version: 0.2\na b\nab c\nab\u0120 d"),
            "here:4: 'ab\u0120' is neither a byte nor what a merge before it makes");
  EXPECT_EQ(refused_merges("a b", "[]"), "here.json is []; expected an object of texts with their ids");
  EXPECT_EQ(refused_merges("a b", ""),
            "here.json: is empty; expected the ids of the tokens of here, or no such file");
  EXPECT_NE(refused_merges("a b", R"({"a": 0, "b": 1, "ab": 2})").find("no token stands for the byte"),
            std::string::npos);
  for (const char* id : {"-1", "2147483648", "9223372036854775808", "1.0", "\"1\"", "null", "{}"})
    EXPECT_NE(refused_merges("a b", std::string(R"({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": )") + id + "}")
                  .find("expected a token"),
              std::string::npos)
        << id;
  EXPECT_NE(refused_merges("a b", R"({"a": 0, "a": 1})").find("has the key 'a' twice"), std::string::npos);
}

/// What is wrong with merges is said of their file, with the line; what is wrong with ids, of theirs.
TEST(Merges, WithIdsNameTheFileAtFault) {
  Json ids = small()["model"]["vocab"];
  ids["<|endoftext|>"] = 258;
  const auto read_with = [&](std::string_view merges) {
    return read_merges(merges, "merges.txt", ids.dump(), "ids");
  };
  const auto message = [&](std::string_view merges) { return message_of<DataError>([&] { read_with(merges); }); };
  EXPECT_EQ(encoded(read_with("#version: 0.2\na b\nab c\n"), "abcab"), (std::vector<Token>{257, 256}));
  EXPECT_EQ(message("#version: 0.2\na b\nab xy\n"), "merges.txt:3: the merge: 'xy' is no token of ids");
  EXPECT_EQ(message("a b\nab c\n\na b\n"),
            "merges.txt:4: the merge is the same as that in line 1, of 'a' and 'b'; expected each once");
  EXPECT_EQ(message("a b\nab c\nb c\n"),
            "merges.txt:3: the merge joins 'b' and 'c' to a text that no token stands for");
  EXPECT_EQ(message("a b\nab"), "merges.txt:2: 'ab'; expected two tokens with a space between them");
  // Cut off at the end of a line.
  EXPECT_EQ(message("a b\n"),
            "merges.txt: its 1 merges make all but 1 of the tokens of ids; expected one for each, 257 ('abc') is "
            "the first without: copy the list again, or the ids that belong to it");
  EXPECT_TRUE(message("").starts_with("merges.txt: its 0 merges make all but 2 of the tokens of ids;"));
  for (const char* mark : {"<pad>", "[MASK]", "madeupword0000"}) ids[mark] = ids.size();
  EXPECT_EQ(message("a b\nab c"), "");
  ids["plain"] = ids.size();
  EXPECT_TRUE(message("a b\nab c").starts_with("merges.txt: its 2 merges make all but 1 of the tokens of ids"));
  ids["plain"] = "x";
  EXPECT_EQ(message("a b\nab c"), "ids['plain'] is \"x\"; expected a token, 0 to 16777215");
}

TEST(Merges, ThatMakeTheTextOfTheEnd) {
  std::string merges, whole = "<";
  for (const char c : std::string("|endoftext|>")) {
    merges += whole + " " + c + "\n";
    whole += c;
  }
  EXPECT_NE(message_of<DataError>([&] { read_merges(merges, "here"); }).find("<|endoftext|>"), std::string::npos);
}

TEST(Merges, OfTokensThatAreNotThereYet) {
  const auto message = [](std::vector<BytePair> merges) {
    return message_of<DataError>([&] { tokenizer_of_merges(std::move(merges), SplitPattern::gpt2, "here"); });
  };
  EXPECT_EQ(message({{0, 256}}), "here: a merge of tokens 0 and 256, of which there are 256 before it");
  EXPECT_EQ(message({{0, 1}, {256, 257}}), "here: a merge of tokens 256 and 257, of which there are 257 before it");
  EXPECT_EQ(message({{-1, 0}}), "here: a merge of tokens -1 and 0, of which there are 256 before it");
  EXPECT_EQ(message({{0, 2147483647}}),
            "here: a merge of tokens 0 and 2147483647, of which there are 256 before it");
}

}  // namespace
}  // namespace dekoder
