// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/tokenizer.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

using testing_support::message_of;

Tokenizer small_alphabet() {
  return Tokenizer::of_characters({U'\n', U'a', U'é', U'€', U'😀'});
}

TEST(Tokenizer, BytesRoundTrip) {
  const Tokenizer tokenizer = Tokenizer::of_bytes();
  const std::string text = "a\né€😀";
  const std::vector<Token> tokens = tokenizer.encode(text);
  EXPECT_EQ(tokens.size(), text.size());
  EXPECT_EQ(tokens[2], 0xC3);
  EXPECT_EQ(tokenizer.decode(tokens), text);
  EXPECT_EQ(tokenizer.vocabulary(), 256);
  EXPECT_EQ(Tokenizer::from_text(tokenizer.to_text(), "here"), tokenizer);
}

TEST(Tokenizer, CharactersOfOneToFourBytesRoundTrip) {
  const Tokenizer tokenizer = small_alphabet();
  const std::string text = "a\né€😀a";
  EXPECT_EQ(tokenizer.encode(text), (std::vector<Token>{1, 0, 2, 3, 4, 1}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_EQ(tokenizer.to_text(), "char U+000A U+0061 U+00E9 U+20AC U+1F600");
  EXPECT_EQ(Tokenizer::from_text(tokenizer.to_text(), "here"), tokenizer);
  std::size_t bytes = 0;
  for (const Token token : tokenizer.encode(text)) bytes += tokenizer.bytes_of(token);
  EXPECT_EQ(bytes, text.size());
}

TEST(Tokenizer, NamesUnknownCharactersOfAPrompt) {
  const std::string message = message_of<ConfigError>([] { small_alphabet().encode("añbb\a", "--prompt"); });
  EXPECT_NE(message.find("lacks U+0007, 'b' (U+0062), 'ñ' (U+00F1); leave them out"), std::string::npos) << message;
  EXPECT_NE(message_of<ConfigError>([] { small_alphabet().encode("aa\xFFz"); }).find("byte 0xFF at offset 2"),
            std::string::npos);
  EXPECT_NE(message_of<ConfigError>([] { small_alphabet().encode("a\xE2\x82"); }).find("offset 1"),
            std::string::npos);
}

TEST(Tokenizer, RefusesDamagedText) {
  for (const char* text : {"", "char", "bytes", "char U+", "char U+XY", "char U+0061,U+0062", "char U+110000",
                           "char U+0062 U+0061", "char U+0061 U+0061", "char 97", "char U+0061  U+0062"})
    EXPECT_NE(message_of<DataError>([&] { Tokenizer::from_text(text, "file.h5"); }).find("file.h5: "),
              std::string::npos)
        << text;
}

TEST(Tokenizer, RefusesForeignTokens) {
  EXPECT_THROW(small_alphabet().decode(std::vector<Token>{5}), std::out_of_range);
  EXPECT_THROW(small_alphabet().decode(std::vector<Token>{-1}), std::out_of_range);
}

TEST(StreamDecoder, HoldsBackUntilACharacterIsWhole) {
  const Tokenizer tokenizer = Tokenizer::of_bytes();
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(0xF0), "");
  EXPECT_EQ(decoder.push(0x9F), "");
  EXPECT_EQ(decoder.push(0x98), "");
  EXPECT_EQ(decoder.push(0x80), "😀");
  EXPECT_EQ(decoder.push(0xE2), "");
  EXPECT_EQ(decoder.push('x'), "\uFFFDx");  // the broken one is replaced, the next is kept
  EXPECT_EQ(decoder.push(0x80), "\uFFFD");  // a continuation byte alone
  EXPECT_EQ(decoder.push(0xE2), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(Utf8, MaximalSubpartsAsInTheUnicodeStandard) {
  // Unicode Standard, section 3.9, tables 3-8 to 3-11: non-shortest forms, surrogates, others, truncated sequences
  const auto decode = [](std::string_view bytes) {
    const Tokenizer tokenizer = Tokenizer::of_bytes();
    return tokenizer.decode(tokenizer.encode(bytes));
  };
  const std::string r = "\uFFFD";
  EXPECT_EQ(decode("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(decode("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(decode("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(decode("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
}

TEST(Utf8, EveryCodePointRoundTrips) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    const Utf8Front front = utf8_front(text);
    ASSERT_EQ(front.kind, Utf8Front::Kind::character);
    ASSERT_EQ(front.code_point, c);
    ASSERT_EQ(front.bytes, text.size());
    ASSERT_EQ(utf8_bytes(c), text.size());
    for (std::size_t cut = 1; cut < text.size(); ++cut)
      ASSERT_EQ(utf8_front(text.substr(0, cut)).kind, Utf8Front::Kind::incomplete);
  }
}

TEST(Utf8, TheFirstFaultIsFoundWithItsPlace) {
  EXPECT_FALSE(find_utf8_fault("").has_value());
  EXPECT_FALSE(find_utf8_fault("caf\u00e9\r\n\uFFFE\uFFFF\U0001FFFF\U0010FFFF").has_value());
  const auto fault = find_utf8_fault("\u00e9t\u00e9\n\u00e9t\xe9\n\xff");
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->line, 2u);
  EXPECT_EQ(fault->column, 3u);
  EXPECT_EQ(fault->offset, 9u);
  EXPECT_EQ(fault->value, 0xE9);
  EXPECT_EQ(fault->text(), "byte 0xE9 at offset 9 is not UTF-8");
  EXPECT_EQ(find_utf8_fault("ab\xc3")->offset, 2u);  // cut short at the end
  EXPECT_EQ(with_invalid_bytes_named("\u00e9 caf\xe9 \xf0\x9f\x98"), "\u00e9 caf\\xE9 \\xF0\\x9F\\x98");
}

TEST(Utf8, ExcerptsAreShortAndInOneLine) {
  EXPECT_EQ(excerpt(""), "");
  EXPECT_EQ(excerpt("caf\u00e9 'x' \\"), "caf\u00e9 'x' \\");
  const std::string hundred(100, 'a');
  EXPECT_EQ(excerpt(hundred), hundred);
  EXPECT_EQ(excerpt(hundred + "b"), hundred + "... (101 bytes)");
  EXPECT_EQ(excerpt(std::string(3000000, 'a')), hundred + "... (3000000 bytes)");
  EXPECT_EQ(excerpt(std::string(99, 'a') + "\u00e9"),
            std::string(99, 'a') + "... (101 bytes)");  // never half of it
  EXPECT_EQ(excerpt(std::string("a\0b\n\x1b[1m\x7f\u0085\xff", 12)), "a\\x00b\\x0A\\x1B[1m\\x7F\\xC2\\x85\\xFF");
  EXPECT_EQ(excerpt("words", 3), "wor... (5 bytes)");
}

TEST(Utf8, ThereAreSixtySixNoncharacters) {
  int count = 0;
  for (char32_t c = 0; c < 0x110000; ++c) count += is_noncharacter(c);
  EXPECT_EQ(count, 66);
  for (const char32_t c : {0xFDD0, 0xFDEF, 0xFFFE, 0xFFFF, 0x1FFFE, 0x10FFFF}) EXPECT_TRUE(is_noncharacter(c));
  for (const char32_t c : {0xFDCF, 0xFDF0, 0xFFFD, 0x10000}) EXPECT_FALSE(is_noncharacter(c));
}

}  // namespace
}  // namespace dekoder
