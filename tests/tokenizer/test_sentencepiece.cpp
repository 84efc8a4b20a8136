// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/sentencepiece_tokenizer.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.hpp"
#include "support/scratch_folder.hpp"
#include "tokenizer/tokenizer.hpp"

namespace dekoder {
namespace {

using testing_support::message_of;

// Made by make_sentencepiece_models.py: the models, and what the Python package does with them.
const std::string fixtures = DEKODER_SOURCE_DIR "/tests/tokenizer/sentencepiece/";
const std::vector<std::string> names{"unigram", "bpe", "suffix"};

std::string file(const std::string& name) {
  std::ifstream stream(fixtures + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::string model(const std::string& name) {
  return file(name + ".model");
}

/// What a damaged model is refused with; empty where it is none.
std::string refusal(const std::string& bytes) {
  return message_of<DataError>([&] { SentencePieceTokenizer(bytes, "here"); });
}

/// A field of a message, as Protocol Buffers write it.
std::string field(int number, const std::string& bytes) {
  std::string result;
  for (std::size_t rest : {std::size_t(number) << 3 | 2, bytes.size()}) {
    for (; rest >= 128; rest >>= 7) result.push_back(static_cast<char>(rest | 128));
    result.push_back(static_cast<char>(rest));
  }
  return result + bytes;
}

std::string piece(const std::string& text, int type) {
  return field(1, field(1, text) + "\x18" + static_cast<char>(type));
}

TEST(SentencePiece, TokensAndTextsAreThoseOfThePythonPackage) {
  std::size_t cases = 0;
  for (const auto& entry : nlohmann::json::parse(file("expected.json"))) {
    const auto name = entry["model"].get<std::string>();
    const Tokenizer tokenizer = Tokenizer::of_sentencepiece(model(name), name);
    const auto ids = entry["ids"].get<std::vector<Token>>();
    const auto decoded = entry["decoded"].get<std::string>();
    ++cases;
    if (entry["text"].is_null()) {  // not from a text: the space in front is in the first token that has one
      EXPECT_EQ(tokenizer.decode(ids), decoded) << name;
      continue;
    }
    const auto text = entry["text"].get<std::string>();
    EXPECT_EQ(tokenizer.encode(text), ids) << name << ": " << text;
    const bool dummy = !ids.empty() && name != "suffix";
    EXPECT_EQ(tokenizer.decode(ids), (dummy ? " " : "") + decoded) << name << ": " << text;

    std::string pieces, bytes;
    std::size_t count = 0;
    StreamDecoder stream(tokenizer);
    for (const Token token : ids) {
      pieces += stream.push(token);
      tokenizer.append_bytes(bytes, token);
      count += tokenizer.bytes_of(token);
    }
    EXPECT_EQ(pieces + stream.finish(), tokenizer.decode(ids));
    EXPECT_EQ(bytes, tokenizer.decode(ids));
    EXPECT_EQ(count, bytes.size());
  }
  EXPECT_EQ(cases, 69u);
}

TEST(SentencePiece, BytesOfACharacterComeTogetherInAStream) {
  const Tokenizer tokenizer = Tokenizer::of_sentencepiece(model("bpe"), "here");
  const std::vector<Token> tokens = tokenizer.encode("😀");
  ASSERT_EQ(tokens.size(), 5u);  // a blank and four bytes
  StreamDecoder stream(tokenizer);
  std::vector<std::string> pieces;
  for (const Token token : tokens) pieces.push_back(stream.push(token));
  EXPECT_EQ(pieces, (std::vector<std::string>{" ", "", "", "", "😀"}));
  EXPECT_EQ(stream.push(tokens[1]), "");
  EXPECT_EQ(stream.push(tokens[0]), "\uFFFD ");
  for (const Token token : {tokens[1], tokens[2], tokens[3], tokens[4]}) EXPECT_EQ(tokenizer.bytes_of(token), 1u);
}

TEST(SentencePiece, MarksStandForNothing) {
  for (const std::string& name : names) {
    const SentencePieceTokenizer pieces(model(name), "here");
    const Tokenizer tokenizer = Tokenizer::of_sentencepiece(model(name), "here");
    EXPECT_EQ(pieces.end_of_text(), 2);
    EXPECT_TRUE(pieces.adds_space());
    std::size_t special = 0;
    for (Token token = 0; token < pieces.size(); ++token) special += pieces.is_special(token);
    EXPECT_EQ(special, 2u);
    EXPECT_TRUE(pieces.is_special(1) && pieces.is_special(2));
    EXPECT_EQ(tokenizer.decode(std::vector<Token>{1, 2}), "");
    EXPECT_EQ(tokenizer.bytes_of(2), 0u);
    EXPECT_EQ(tokenizer.listed(2), "</s>");
    EXPECT_EQ(tokenizer.listed(0), " \u2047 ");
    EXPECT_EQ(tokenizer.decode(std::vector<Token>{0}), " \u2047 ");
    EXPECT_THROW(tokenizer.decode(std::vector<Token>{pieces.size()}), std::out_of_range);
    EXPECT_THROW(tokenizer.decode(std::vector<Token>{-1}), std::out_of_range);
    EXPECT_THROW(tokenizer.bytes_of(pieces.size()), std::out_of_range);
  }
  EXPECT_FALSE(
      SentencePieceTokenizer(piece("<unk>", 2) + piece("a", 1) + field(3, std::string("\x18\0", 2)), "here")
          .adds_space());
  EXPECT_EQ(SentencePieceTokenizer(piece("<unk>", 2) + piece("a", 1), "here").end_of_text(), -1);
}

TEST(SentencePiece, TextFormRoundTrips) {
  for (const std::string& name : names) {
    const Tokenizer tokenizer = Tokenizer::of_sentencepiece(model(name), "here");
    const std::string text = tokenizer.to_text();
    EXPECT_TRUE(text.starts_with("sentencepiece "));
    const Tokenizer again = Tokenizer::from_text(text, "file.h5");
    EXPECT_EQ(again, tokenizer);
    EXPECT_EQ(again.kind(), TokenizerKind::sentencepiece);
    EXPECT_STREQ(tokenizer_kind_name(again.kind()), "sentencepiece");
    EXPECT_EQ(again.sentencepiece()->model(), model(name));
    EXPECT_EQ(again.vocabulary(), tokenizer.sentencepiece()->size());
    EXPECT_EQ(again.encode("The bridge held."), tokenizer.encode("The bridge held."));
    EXPECT_NE(tokenizer, Tokenizer::of_bytes());
    EXPECT_EQ(message_of<DataError>([&] {
                Tokenizer::from_text(text.substr(0, text.size() - 1), "file.h5");
              }).find("file.h5: tokenizer 'sentencepiece "),
              0u);
  }
  EXPECT_NE(Tokenizer::of_sentencepiece(model("bpe"), "here"),
            Tokenizer::of_sentencepiece(model("unigram"), "here"));
  EXPECT_EQ(message_of<DataError>([] { Tokenizer::from_text("sentencepiece ", "file.h5"); }),
            "file.h5: tokenizer: is empty; expected a .model file of SentencePiece, unigram or BPE");
}

TEST(SentencePiece, ForeignBytesAreRefusedInOneLine) {
  const std::string expected = "; expected a .model file of SentencePiece, unigram or BPE";
  const std::string unknown = piece("<unk>", 2), letter = piece("a", 1), two = unknown + letter;
  EXPECT_EQ(refusal(two), "");
  EXPECT_EQ(refusal(""), "here: is empty" + expected);
  EXPECT_EQ(refusal("Once upon a time"), "here: has a field of the wire type 7" + expected);
  EXPECT_EQ(refusal(two + "\x0A\xFF\xFF\xFF\xFF\x07"),
            "here: has a field of 2147483647 bytes where 0 are left" + expected);
  EXPECT_EQ(refusal(two + "\x12\x80\x80\x80\x80\x08z"),
            "here: has a field of 2147483648 bytes where 1 are left" + expected);
  EXPECT_EQ(refusal(two + "\x12\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"),
            "here: has a field of 18446744073709551615 bytes where 0 are left" + expected);
  EXPECT_EQ(refusal(two + "\x12\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02"),
            "here: has a number of more than 64 bits" + expected);
  EXPECT_EQ(refusal(two + std::string("\0\0", 2)), "here: has a field with the tag 0" + expected);
  EXPECT_EQ(refusal(two + "\x08\x01"), "here: has the wire type 0 where 2 is due" + expected);
  EXPECT_EQ(refusal(field(2, "x")), "here: has a field of 1 bytes where 0 are left" + expected);
  EXPECT_EQ(refusal(field(9, "x")), "here: has no pieces" + expected);
  EXPECT_EQ(refusal(two + letter), "here: has the piece 'a' twice" + expected);
  EXPECT_EQ(refusal(two + piece("", 1)), "here: piece 2 is '', no text of 1 to 4096 bytes" + expected);
  EXPECT_EQ(refusal(two + piece("\xFF", 1)), "here: piece 2 is '\\xFF', no text of 1 to 4096 bytes" + expected);
  EXPECT_EQ(refusal(two + piece(std::string("b\0", 2), 1)),
            "here: piece 2 is 'b\\x00', no text of 1 to 4096 bytes" + expected);
  EXPECT_EQ(refusal(two + piece("b", 7)), "here: piece 2 has the type 7" + expected);
  EXPECT_EQ(refusal(two + field(1, field(1, "b") + std::string("\x15\0\0\xC0\x7F", 5))),
            "here: piece 2 has the score nan" + expected);
  EXPECT_EQ(refusal(two + field(2, "\x18\x04")), "here: has the model type 4" + expected);
  EXPECT_EQ(refusal(two + field(5, field(2, "rules"))), "here: has rules of denormalization" + expected);
  EXPECT_EQ(refusal(letter), "here: is refused by SentencePiece (unk is not defined.)" + expected);
  EXPECT_EQ(refusal(unknown), "here: is refused by SentencePiece (no pieces are loaded.)" + expected);
  EXPECT_EQ(refusal(two + piece("<0x41>", 6)),
            "here: is refused by SentencePiece (byte piece <0x41> is found although `byte_fallback` is false.)" +
                expected);
  const Tokenizer bytes = Tokenizer::of_sentencepiece(two, "here");
  EXPECT_EQ(message_of<DataError>([&] { bytes.encode(std::string(16777217, 'a'), "--prompt"); }),
            "--prompt: a text of 16777217 bytes; expected at most 16777216 at once for a sentencepiece tokenizer");
}

/// The library has 64 places for these.
TEST(SentencePiece, SymbolsThatBeginAlikeAreAtMost64) {
  std::string bytes = piece("<unk>", 2) + piece("b", 1);
  for (int i = 1; i <= 64; ++i) bytes += piece(std::string(std::size_t(i), 'a'), 4);
  EXPECT_EQ(SentencePieceTokenizer(bytes, "here").encode(std::string(64, 'a'), "text").back(), 65);
  EXPECT_NE(refusal(bytes + piece(std::string(65, 'a'), 4)).find("has 65 user-defined symbols that begin alike"),
            std::string::npos);
}

/// The library walks the array of these rules without looking at its bounds.
TEST(SentencePiece, DamagedRulesOfNormalizationAreRefused) {
  const auto units = [](const std::vector<std::pair<std::size_t, std::uint32_t>>& set,
                        std::uint32_t claimed = 1024) {
    std::string blob(4 + 1024, '\0');
    const auto put = [&](std::size_t at, std::uint32_t value) {
      for (std::size_t i = 0; i < 4; ++i) blob[at + i] = static_cast<char>(value >> 8 * i);
    };
    put(0, claimed);
    for (std::size_t i = 0; i < 256; ++i) put(4 + 4 * i, 0x800000FFu);  // no byte leads there
    for (const auto& [at, value] : set) put(4 + 4 * at, value);
    return blob;
  };
  const auto with = [](const std::string& blob) {
    return piece("<unk>", 2) + piece("a", 1) + piece("b", 1) + piece("\u2581", 1) + field(3, field(2, blob));
  };
  const auto damaged = [&](const std::string& blob) {
    EXPECT_NE(refusal(with(blob)).find("here: has damaged rules of normalization; expected"), std::string::npos);
  };
  const auto unit = [](unsigned offset, char label, bool leaf) {
    return offset << 10 | unsigned(leaf) << 8 | static_cast<unsigned char>(label);
  };
  // 'b' at 1 ^ 'b' gives the replacement at 0: "a"
  const std::size_t b = 1 ^ 'b';
  const std::uint32_t root = unit(1, 0, false), leaf = unit(3, 'b', true);
  const std::size_t place = b ^ 3;
  const std::string text("a\0", 2);
  const std::string good = units({{0, root}, {b, leaf}, {place, 0x80000000u}}) + text;
  ASSERT_EQ(refusal(with(good)), "");
  EXPECT_EQ(SentencePieceTokenizer(with(good), "here").encode("bbb", "text"), (std::vector<Token>{3, 1, 1, 1}));
  damaged("x");
  damaged(std::string(4, '\0'));
  damaged(std::string(5, '\0'));
  damaged(good.substr(0, good.size() - 2));  // no replacements
  damaged(good.substr(0, good.size() - 1));  // one without an end
  damaged(units({{0, root}, {b, leaf}, {place, 0x80000000u}}, 1023) + text);
  damaged(units({{0, root}, {b, leaf}, {place, 0x80000000u}}, 1028) + text);
  damaged(units({{0, root}, {b, leaf}, {place, 0x80000000u}}, 0xFFFFFFFFu) + text);
  damaged(units({{0, root}, {b, leaf}, {place, 0x80000000u}}, 4) + text);
  damaged(units({{0, root}, {b, leaf}, {place, 0x80000002u}}) + text);  // a replacement behind the end
  damaged(units({{0, root}, {b, leaf}, {place, 0xFFFFFFFFu}}) + text);
  damaged(units({{0, unit(256, 0, false)}}) + text);
  damaged(units({{0, unit(0x1FFFFF, 0, false)}}) + text);
  damaged(units({{0, root}, {b, unit(0, 'b', false)}, {b ^ 'b', unit(1 ^ unsigned(b ^ 'b'), 'b', false)}}) + text);
  damaged(units({{0, root}, {b, leaf}, {place, 0x80000000u}}) + std::string(43, 'x') + std::string(1, '\0'));
}

/// Uses a model that was taken: whatever it says, its own tokens decode.
void use(const SentencePieceTokenizer& pieces) {
  const std::string text =
      " The bridge\nheld 12 caf\u00e9 \ufb01 e\u0301 \u2460 \t\xff\xe2 \U0001F600 <sep> <s>  \n\n quartz";
  try {
    for (const Token token : pieces.encode(text, "text")) {
      ASSERT_GE(token, 0);
      ASSERT_LT(token, pieces.size());
    }
  } catch (const DataError&) {  // a model in which a mark is a word, say
  }
}

TEST(SentencePiece, TruncatedModelsAreRefused) {
  for (const std::string& name : names) {
    const std::string whole = model(name);
    std::size_t refused = 0;
    for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
      const std::string message = refusal(whole.substr(0, bytes));
      if (message.empty())
        use(SentencePieceTokenizer(whole.substr(0, bytes), "here"));  // cut between two fields
      else
        ASSERT_TRUE(message.starts_with("here: ") && message.find('\n') == std::string::npos) << message;
      refused += !message.empty();
    }
    EXPECT_GT(refused, whole.size() * 9 / 10);
  }
}

TEST(SentencePiece, FlippedBytesNeverDoHarm) {
  std::mt19937 random(1);
  const auto below = [&](std::size_t end) { return random() % end; };
  for (const std::string& name : names) {
    const std::string whole = model(name);
    std::size_t refused = 0;
    constexpr int rounds = 4000;
    for (int round = 0; round < rounds; ++round) {
      std::string bytes = whole;
      for (std::size_t flips = 1 + below(4); flips > 0; --flips) {
        const std::size_t at = below(bytes.size());
        switch (below(5)) {
          case 0:
            bytes[at] = static_cast<char>(random());
            break;
          case 1:
            bytes[at] = static_cast<char>(bytes[at] ^ 1 << below(8));
            break;
          case 2:
            bytes.erase(at, 1 + below(8));
            break;
          case 3:
            bytes.insert(at, whole.substr(below(whole.size()), below(32)));
            break;
          default:
            bytes.replace(at, 5, "\xFF\xFF\xFF\xFF\x07");
        }
        if (bytes.empty()) bytes = "x";
      }
      const std::string message = refusal(bytes);
      if (message.empty())
        use(SentencePieceTokenizer(bytes, "here"));
      else
        ASSERT_TRUE(message.starts_with("here: ") && message.find('\n') == std::string::npos) << message;
      refused += !message.empty();
    }
    EXPECT_GT(refused, rounds / 4u) << name;
    EXPECT_LT(refused, std::size_t(rounds)) << name;
  }
}

TEST(SentencePiece, NothingElseIsWritten) {
  testing::internal::CaptureStderr();
  refusal(model("unigram").substr(0, 100));
  refusal(piece("a", 1));
  refusal(field(9, "x"));
  refusal(piece("<unk>", 2));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace dekoder
