// SPDX-License-Identifier: Apache-2.0
#include "data/token_dataset.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <optional>

#include "base/error.hpp"
#include "data/prepare_tokens.hpp"
#include "io/files/input_file.hpp"
#include "io/files/sha256.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "support/scratch_folder.hpp"
#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/byte_pair_files.hpp"

namespace dekoder {
namespace {

using testing_support::message_of;
using testing_support::ScratchFolder;

std::string all_text(const TokenDataset& dataset) {
  std::vector<Token> tokens(dataset.header().tokens);
  dataset.read(0, tokens);
  std::string text;
  for (const Token token : tokens) dataset.tokenizer().append_bytes(text, token);
  return text;
}

TEST(PrepareTokens, RoundTripOfBothKinds) {
  const ScratchFolder scratch("prepare");
  std::string text;  // longer than a buffer, characters of all lengths across its borders
  for (int i = 0; text.size() < 2'500'000; ++i) text += i % 3 ? "aé€😀" : "\nb€";
  const auto source = scratch.write("text.txt", text);
  for (const TokenizerKind kind : {TokenizerKind::bytes, TokenizerKind::characters}) {
    const auto output = scratch / (std::string(tokenizer_kind_name(kind)) + ".h5");
    const PrepareReport report = prepare_tokens(source, output, kind, 0.1);
    EXPECT_FALSE(report.unchanged);
    const TokenDataset dataset(output);
    EXPECT_EQ(all_text(dataset), text);
    EXPECT_EQ(dataset.header().source_sha256, sha256(std::as_bytes(std::span(text))));
    EXPECT_EQ(dataset.header().source_bytes, text.size());
    EXPECT_EQ(dataset.vocabulary(), kind == TokenizerKind::bytes ? 256 : 6);
    std::vector<Token> held_out(dataset.validation_tokens());
    dataset.read(dataset.training_tokens(), held_out);
    EXPECT_NEAR(static_cast<double>(held_out.size()), 0.1 * static_cast<double>(dataset.header().tokens), 1);
    std::string held_out_text;
    for (const Token token : held_out) dataset.tokenizer().append_bytes(held_out_text, token);
    EXPECT_EQ(dataset.header().validation_bytes, held_out_text.size());
    EXPECT_TRUE(text.ends_with(held_out_text));
    EXPECT_TRUE(prepare_tokens(source, output, kind, 0.1).unchanged);
    EXPECT_FALSE(prepare_tokens(source, output, kind, 0.2).unchanged);
  }
}

TEST(PrepareTokens, MoreThan65536CharactersNeedWiderTokens) {
  const ScratchFolder scratch("prepare-wide");
  std::string text;
  for (char32_t c = 0xE000; c < 0xE000 + 70'000; ++c) append_utf8(text, c);
  prepare_tokens(scratch.write("wide.txt", text), scratch / "wide.h5", TokenizerKind::characters, 0);
  EXPECT_EQ(Hdf5File::open(scratch / "wide.h5").dataset("/tokens").type(), Hdf5Type::uint32);
  const TokenDataset dataset(scratch / "wide.h5"), streamed(scratch / "wide.h5", 100);
  EXPECT_EQ(dataset.vocabulary(), 70'000);
  EXPECT_EQ(all_text(dataset), text);
  EXPECT_EQ(all_text(streamed), text);
}

Tokenizer small_byte_pairs(SplitPattern pattern, const std::string& added = "") {
  std::vector<BytePair> merges;
  std::vector<std::string> texts;  // ids of bytes are those of the alphabet's order
  for (const unsigned char byte : byte_alphabet().in_order) texts.emplace_back(1, static_cast<char>(byte));
  for (const auto& [left, right] : std::initializer_list<std::pair<const char*, const char*>>{
           {"t", "h"}, {"th", "e"}, {" ", "the"}, {"1", "2"}, {"12", "12"}, {"\xE3", "\x80"}, {"\n", "\n"}}) {
    const auto find = [&](const char* text) {
      return Token(std::find(texts.begin(), texts.end(), text) - texts.begin());
    };
    merges.push_back({find(left), find(right)});
    texts.push_back(std::string(left) + right);
  }
  const BytePairTokenizer plain = tokenizer_of_merges(merges, pattern, "test");
  if (added.empty()) return Tokenizer::of_byte_pairs(plain);
  texts.emplace_back(end_of_text_name);
  texts.push_back(added);
  const Token end = Token(texts.size()) - 2;
  const std::vector<Token> unused{end, end + 1};
  return Tokenizer::of_byte_pairs({BytePairs(texts, merges, false, unused, "test"),
                                   pattern,
                                   {{end, end_of_text_name, true}, {end + 1, added, false}},
                                   false,
                                   "test"});
}

/// Cut for the threads, whatever the script, also where lines do not end and where an added token lies across.
TEST(PrepareTokens, LongTextsHaveTheTokensOfTheWhole) {
  const ScratchFolder scratch("prepare-long");
  const auto repeated = [](const std::string& text, std::size_t bytes) {
    std::string all;
    for (int i = 0; all.size() < bytes; ++i) all += text + std::string(std::size_t(i % 3), 'x');
    return all;
  };
  const std::string texts[] = {repeated("the then, there's  the 1212 naïve\n\n the", 700'000),
                               repeated("the the ", 700'000),
                               repeated("日本語、の。\u3000文章\n", 700'000),
                               std::string(600'000, '1'),
                               repeated("e\u0301the\n\u0301", 700'000),
                               repeated("\xE3\x80 \xFF", 600'000)};
  for (const SplitPattern pattern : {SplitPattern::gpt2, SplitPattern::cl100k, SplitPattern::qwen2})
    for (const std::string added : {"", "the ", "e "}) {
      const Tokenizer tokenizer = small_byte_pairs(pattern, added);
      scratch.write("t.json", tokenizer.to_text());
      for (const std::string& text : texts) {
        PrepareOptions options;
        options.sources = {scratch.write("t.txt", text).string()};
        options.tokenizer.name = (scratch / "t.json").string();
        options.threads = 3;
        options.output = scratch / "t.h5";
        prepare_tokens(options);
        const TokenDataset dataset(options.output);
        std::vector<Token> tokens(dataset.header().tokens), expected = tokenizer.encode(text);
        expected.push_back(tokenizer.byte_pairs()->end_of_text());
        dataset.read(0, tokens);
        ASSERT_TRUE(tokens == expected)
            << split_pattern_name(pattern) << " '" << added << "' " << text.substr(0, 20);
        EXPECT_EQ(dataset.header().documents, 1u);
        EXPECT_EQ(dataset.header().source_bytes, text.size());
      }
    }
}

/// Memory has a bound: there a word is cut, between characters.
TEST(PrepareTokens, AWordWithoutAnEndIsCut) {
  const ScratchFolder scratch("prepare-endless");
  std::string text;
  while (text.size() < (std::size_t{17} << 20)) text += "€1€2";
  scratch.write("t.json", small_byte_pairs(SplitPattern::qwen2).to_text());
  PrepareOptions options;
  options.sources = {scratch.write("t.txt", text).string()};
  options.tokenizer.name = (scratch / "t.json").string();
  options.output = scratch / "t.h5";
  prepare_tokens(options);
  EXPECT_TRUE(all_text(TokenDataset(options.output)) == text + end_of_text_name);
}

TEST(PrepareTokens, TheHeldOutShareIsMet) {
  const ScratchFolder scratch("prepare-share");
  std::string lines;
  for (int i = 0; i < 1000; ++i)
    lines += fmt::format("{{\"text\": \"{}\"}}\n", std::string(std::size_t(i % 7 + 1), 'a'));
  PrepareOptions options;
  options.sources = {scratch.write("t.jsonl", lines).string()};
  options.output = scratch / "t.h5";
  for (const double fraction : {0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.75, 0.99}) {
    options.validation_fraction = fraction;
    const TokenFileHeader header = prepare_tokens(options).header;
    EXPECT_NEAR(double(header.validation_documents), 1000 * fraction, 1) << fraction;
    EXPECT_EQ(header.documents, 1000u);
    EXPECT_EQ(header.validation_bytes, header.validation_tokens());
    EXPECT_TRUE(prepare_tokens(options).unchanged);
    const token_file::DocumentLengths lengths =
        token_file::document_lengths(options.output, token_file::read_header(options.output));
    EXPECT_EQ(lengths.least, 1u);
    EXPECT_EQ(lengths.most, 7u);
    EXPECT_EQ(lengths.of_bits[0] + lengths.of_bits[1] + lengths.of_bits[2], 1000u);
  }
}

/// The header alone does not make a file the one that was prepared.
TEST(PrepareTokens, MakesADamagedFileAnew) {
  const ScratchFolder scratch("prepare-anew");
  const auto source = scratch.write("t.txt", std::string(1000, 'a') + std::string(1000, 'b'));
  const auto prepare = [&] {
    return prepare_tokens(source, scratch / "t.h5", TokenizerKind::bytes, 0.1).unchanged;
  };
  EXPECT_FALSE(prepare());
  EXPECT_TRUE(prepare());
  const std::string whole = read_text_file(scratch / "t.h5", "token file").value();
  std::string damaged = whole;
  damaged[damaged.find(std::string("a\0a\0a\0", 6)) + 2] ^= 1;
  scratch.write("t.h5", damaged);
  testing::internal::CaptureStderr();
  EXPECT_FALSE(prepare());
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("damaged"), std::string::npos) << said;
  EXPECT_NE(said.find("it is made anew"), std::string::npos) << said;
  EXPECT_EQ(read_text_file(scratch / "t.h5", "token file"), whole);
  EXPECT_TRUE(prepare());
}

TEST(PrepareTokens, NamesWhatIsWrong) {
  const ScratchFolder scratch("prepare-bad");
  const auto prepare = [&](const std::string& text, const std::string& output, TokenizerKind kind,
                           double fraction = 0.1) {
    return message_of<UserError>([&] { prepare_tokens(scratch / text, scratch / output, kind, fraction); });
  };
  const auto has = [](const std::string& message, const std::string& part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  scratch.write("empty", "");
  scratch.write("one", "x");
  scratch.write("good", "some text that is long enough");
  scratch.write("latin1", "caf\xE9 au lait");
  scratch.write("cut", "ends within \xE2\x82");
  has(prepare("none", "o.h5", TokenizerKind::bytes), "none: no such text file");
  has(prepare(".", "o.h5", TokenizerKind::bytes), "is a folder");
  has(prepare("empty", "o.h5", TokenizerKind::bytes), "is empty");
  has(prepare("empty", "o.h5", TokenizerKind::characters), "is empty");
  has(prepare("one", "o.h5", TokenizerKind::bytes), "expected at least 2");
  has(prepare("good", "o.h5", TokenizerKind::bytes, 0.99), "expected at least 2");
  has(prepare("good", "o.h5", TokenizerKind::bytes, 1.0), "below 1");
  has(prepare("good", "o.h5", TokenizerKind::bytes, -0.1), "below 1");
  has(prepare("latin1", "o.h5", TokenizerKind::characters), "byte 0xE9 at offset 3 is not UTF-8");
  has(prepare("cut", "o.h5", TokenizerKind::characters), "byte 0xE2 at offset 12 is not UTF-8");
  has(prepare("good", "no/o.h5", TokenizerKind::bytes), "does not exist; make it first");
  has(prepare("good", "good", TokenizerKind::bytes), "is the same file as");
  has(prepare("good", "latin1", TokenizerKind::bytes), "is no usable token file");
  EXPECT_EQ(prepare("latin1", "o.h5", TokenizerKind::bytes), "");
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(scratch.path())) files += entry.is_regular_file();
  EXPECT_EQ(files, 6u) << "a temporary file was left";
}

class DamagedTokenFile : public testing::Test {
 protected:
  /// Writes a token file whose parts `change` may alter first, and returns what opening it says.
  struct Parts {
    std::string format = "dekoder-tokens", tokenizer = "char U+0061 U+0062 U+0063";
    std::int32_t major = token_file::major_version;
    std::uint64_t tokens = 6, training_tokens = 4, source_bytes = 6, validation_bytes = 2, block_tokens = 4;
    std::vector<std::uint16_t> values = {0, 1, 2, 0, 1, 2};
    std::vector<std::uint64_t> digests;
    bool keep_digests = false;
    std::vector<std::uint64_t> document_ends;  ///< none: minor version 0
    std::uint64_t documents = 2, validation_documents = 1;
    std::string sha256 = std::string(64, '0'), split = "document";
    double validation_fraction = 0.5;
    std::optional<std::uint64_t> validation_token_bytes;  ///< and unknown_tokens
    std::uint64_t unknown_tokens = 0;
    bool tells_documents = true;
    Hdf5Type stored = Hdf5Type::uint16;
  };
  std::string message(const std::function<void(Parts&)>& change) {
    Parts parts;
    const auto digest = [](const Parts& p) {
      const std::span<const std::uint16_t> values(p.values);
      return std::vector{token_file::block_digest(0, values.first(4)),
                         token_file::block_digest(1, values.subspan(4))};
    };
    parts.digests = digest(parts);
    change(parts);
    if (!parts.keep_digests && parts.values.size() >= 4 && parts.digests.size() == 2) parts.digests = digest(parts);
    {
      Hdf5File file = Hdf5File::create(scratch_ / "t.h5");
      file.write_attribute("/", "format", parts.format);
      file.write_attribute("/", "major", parts.major);
      file.write_attribute("/", "tokenizer", parts.tokenizer);
      file.write_attribute("/", "source", "t.txt");
      file.write_attribute("/", "source_sha256", parts.sha256);
      file.write_attribute("/", "source_bytes", parts.source_bytes);
      file.write_attribute("/", "tokens", parts.tokens);
      file.write_attribute("/", "training_tokens", parts.training_tokens);
      file.write_attribute("/", "validation_bytes", parts.validation_bytes);
      file.write_attribute("/", "block_tokens", parts.block_tokens);
      if (!parts.document_ends.empty()) {
        file.write<std::uint64_t>("/document_ends", parts.document_ends);
        if (parts.tells_documents) file.write_attribute("/", "documents", parts.documents);
        file.write_attribute("/", "validation_documents", parts.validation_documents);
        file.write_attribute("/", "empty_documents", std::uint64_t{0});
        file.write_attribute("/", "split", parts.split);
        file.write_attribute("/", "validation_fraction", parts.validation_fraction);
      }
      if (parts.validation_token_bytes) {
        file.write_attribute("/", "validation_token_bytes", *parts.validation_token_bytes);
        file.write_attribute("/", "unknown_tokens", parts.unknown_tokens);
      }
      if (parts.stored == Hdf5Type::uint16)
        file.write<std::uint16_t>("/tokens", parts.values);
      else
        file.write<std::uint64_t>("/tokens", std::vector<std::uint64_t>(parts.values.begin(), parts.values.end()));
      file.write<std::uint64_t>("/block_digests", parts.digests);
      file.close();
    }
    return message_of<DataError>([&] { TokenDataset dataset(scratch_ / "t.h5"); });
  }
  void expect(const std::function<void(Parts&)>& change, const std::string& part) {
    const std::string got = message(change);
    EXPECT_NE(got.find(part), std::string::npos) << "got: " << got << "\nexpected: " << part;
  }
  ScratchFolder scratch_{"token-damaged"};
};

TEST_F(DamagedTokenFile, EveryInconsistencyIsNamed) {
  EXPECT_EQ(message([](Parts&) {}), "");
  expect([](Parts& p) { p.format = "dekoder-checkpoint"; }, "is no token file");
  expect([](Parts& p) { p.major = 3; }, "format 3, this program reads 2; prepare the text again");
  expect([](Parts& p) { p.major = 1; }, "format 1, this program reads 2; run `dekoder prepare` again");
  expect([](Parts& p) { p.tokenizer = "bpe"; }, "tokenizer 'bpe' is unknown");
  expect([](Parts& p) { p.tokens = 7; }, "6 values on 1 axes, expected 7 tokens");
  expect([](Parts& p) { p.training_tokens = 7; }, "training_tokens is 7, expected 1 to 6");
  expect([](Parts& p) { p.training_tokens = 0; }, "training_tokens is 0, expected 1 to 6");
  EXPECT_EQ(message([](Parts& p) { p.training_tokens = 1, p.validation_bytes = 5; }), "");
  EXPECT_EQ(message([](Parts& p) { p.training_tokens = 6, p.validation_bytes = 0; }), "");
  expect([](Parts& p) { p.validation_bytes = 7; }, "validation_bytes is 7, above the 6 bytes");
  for (const std::uint64_t bytes : {0, 1, 3, 6})
    expect([&](Parts& p) { p.validation_bytes = bytes; },
           fmt::format("validation_bytes is {}, of 2 tokens that have 1 to 1 bytes each", bytes));
  for (const std::uint64_t bytes : {std::uint64_t{2}, std::uint64_t{5}, std::uint64_t{7}, ~std::uint64_t{0}})
    expect([&](Parts& p) { p.source_bytes = bytes; },
           fmt::format("source_bytes is {}, of 6 tokens that have 1 to 1 bytes each", bytes));
  EXPECT_EQ(message([](Parts& p) {
              p.tokenizer = "char U+0061 U+0062 U+00E9", p.validation_bytes = 4;
            }).find("validation_bytes"),
            std::string::npos);
  expect([](Parts& p) { p.tokenizer = "char U+0061 U+0062 U+00E9", p.validation_bytes = 5; },
         "validation_bytes is 5, of 2 tokens that have 1 to 2 bytes each");
  for (const char* digest : {"", "00", "g"})
    expect([&](Parts& p) { p.sha256 = *digest == 'g' ? std::string(64, 'g') : digest; }, "source_sha256 is '");
  expect([](Parts& p) { p.validation_token_bytes = 1; }, "validation_token_bytes is 1, of 0 tokens");
  expect([](Parts& p) { p.validation_token_bytes = 0, p.unknown_tokens = 1; },
         "unknown_tokens is 1, expected at most 0");
  EXPECT_EQ(message([](Parts& p) { p.document_ends = {4, 6}; }), "");
  expect([](Parts& p) { p.document_ends = {4, 6}, p.documents = 3; }, "/document_ends: 2 values of uint64");
  for (const std::uint64_t held_out : {std::uint64_t{2}, std::uint64_t{3}, ~std::uint64_t{0}})
    expect([&](Parts& p) { p.document_ends = {4, 6}, p.validation_documents = held_out; },
           fmt::format("validation_documents is {}, expected at most 1 of 2, split by document", held_out));
  expect([](Parts& p) { p.document_ends = {4, 6}, p.validation_documents = 0; },
         "validation_documents is 0, and 2 tokens are held out");
  expect([](Parts& p) { p.document_ends = {4, 6}, p.split = "place"; },
         "validation_documents is 1, expected at most 0 of 2, split by place");
  EXPECT_EQ(message([](Parts& p) { p.document_ends = {3, 6}, p.split = "place", p.validation_documents = 0; }), "");
  for (const char* split : {"", "x", "documents", "Place"})
    expect([&](Parts& p) { p.document_ends = {4, 6}, p.split = split; },
           fmt::format("split is '{}', expected document or place", split));
  for (const double fraction : {-0.1, 1.0, 1e300, std::numeric_limits<double>::quiet_NaN()})
    expect([&](Parts& p) { p.document_ends = {4, 6}, p.validation_fraction = fraction; },
           "validation_fraction is ");
  for (const std::uint64_t documents : {std::uint64_t{0}, std::uint64_t{7}, ~std::uint64_t{0}})
    expect([&](Parts& p) { p.document_ends = {4, 6}, p.documents = documents; },
           fmt::format("documents is {}, expected 1 to 6", documents));
  expect([](Parts& p) { p.document_ends = {4, 6}, p.tells_documents = false; },
         "has /document_ends, but no documents");
  for (const std::vector<std::uint64_t>& ends :
       {std::vector<std::uint64_t>{4, 7}, {5, 6}, {4, 4}, {0, 6}, {4, 5}, {4, ~std::uint64_t{0}}, {6, 4}}) {
    expect([&](Parts& p) { p.document_ends = ends; }, "/document_ends: ");  // a small file is read whole
    EXPECT_EQ(message_of<DataError>([&] { TokenDataset large(scratch_ / "t.h5", 0); }), "");
    EXPECT_NE(message_of<DataError>([&] { token_file::verify(scratch_ / "t.h5"); }).find("/document_ends: "),
              std::string::npos);
  }
  expect([](Parts& p) { p.stored = Hdf5Type::uint64; }, "/tokens: holds uint64, expected uint16 or uint32");
  expect([](Parts& p) { p.block_tokens = 0; }, "block_tokens is 0");
  expect([](Parts& p) { p.block_tokens = (1 << 24) + 1; }, "block_tokens is 16777217, expected 1 to 16777216");
  expect([](Parts& p) { p.block_tokens = 1 << 24; }, "2 values, expected 1");
  expect([](Parts& p) { p.block_tokens = 2; }, "2 values, expected 3");
  expect([](Parts& p) { p.values[0] = 3; }, "token 0 is 3, outside of the vocabulary of 3");
  expect([](Parts& p) { p.values[5] = 3; }, "token 5 is 3, outside of the vocabulary of 3");
  expect([](Parts& p) { p.values = {0, 0, 0, 0, 1, 2}, p.keep_digests = true; },
         "block 0 (tokens 0 to 3): damaged");
  expect([](Parts& p) { p.values = {0, 1, 2, 0, 1, 1}, p.keep_digests = true; },
         "block 1 (tokens 4 to 5): damaged");
  expect([](Parts& p) { std::swap(p.digests[0], p.digests[1]), p.keep_digests = true; }, "damaged");
}

TEST_F(DamagedTokenFile, EveryBlockIsVerifiedAndTheOthersStayReadable) {
  const auto read = [](const TokenDataset& dataset, std::uint64_t token) {
    Token value = -1;
    dataset.read(token, std::span(&value, 1));
    return value;
  };
  const auto verified = [&] { return message_of<DataError>([&] { token_file::verify(scratch_ / "t.h5"); }); };
  EXPECT_EQ(message([](Parts&) {}), "");
  EXPECT_EQ(verified(), "");
  for (const std::size_t block : {0, 1}) {
    expect([&](Parts& p) { p.digests[block] ^= 1, p.keep_digests = true; }, "damaged");
    EXPECT_NE(verified().find(fmt::format("block {}", block)), std::string::npos) << verified();
    const TokenDataset streamed(scratch_ / "t.h5", 0);
    for (int again = 0; again < 2; ++again) {
      EXPECT_THROW(read(streamed, 4 * block), DataError);
      EXPECT_EQ(read(streamed, block == 0 ? 5 : 2), 2) << "the block that is whole";
    }
  }
}

TEST_F(DamagedTokenFile, PrepareReplacesAnOlderFormat) {
  EXPECT_NE(message([](Parts& p) { p.major = 1; }), "");
  const auto source = scratch_.write("text.txt", "abcabc");
  EXPECT_FALSE(prepare_tokens(source, scratch_ / "t.h5", TokenizerKind::characters, 0.3).unchanged);
  EXPECT_EQ(all_text(TokenDataset(scratch_ / "t.h5")), "abcabc");
  EXPECT_NE(message([](Parts& p) { p.major = 3; }), "");
  EXPECT_THROW(prepare_tokens(source, scratch_ / "t.h5", TokenizerKind::characters, 0.3), DataError)
      << "what a newer program wrote is not overwritten";
}

TEST_F(DamagedTokenFile, ForeignFilesAreNamed) {
  const auto open = [&](const std::string& name) {
    return message_of<DataError>([&] { TokenDataset dataset(scratch_ / name); });
  };
  {
    Hdf5File file = Hdf5File::create(scratch_ / "foreign.h5");
    file.write<float>("/tokens", std::vector<float>{1, 2});
    file.close();
  }
  EXPECT_NE(open("foreign.h5").find("is no token file"), std::string::npos);
  scratch_.write("text.h5", "plain text");
  EXPECT_NE(open("text.h5").find("cannot be opened as HDF5"), std::string::npos);
  EXPECT_NE(open("none.h5").find("no such file"), std::string::npos);
}

TEST_F(DamagedTokenFile, NoTruncationAndNoFlippedByteIsReadAsGood) {
  std::string text(3000, ' ');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i * i % 23);
  prepare_tokens(scratch_.write("a.txt", text), scratch_ / "a.h5", TokenizerKind::characters, 0.1);
  std::string bytes(std::filesystem::file_size(scratch_ / "a.h5"), '\0');
  std::ifstream(scratch_ / "a.h5", std::ios::binary).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  for (std::size_t cut = 0; cut < bytes.size(); cut += 97) {
    scratch_.write("cut.h5", std::string_view(bytes).substr(0, cut));
    EXPECT_THROW(TokenDataset dataset(scratch_ / "cut.h5"), DataError) << "cut at " << cut;
  }
  int refused = 0, flips = 0;
  for (std::size_t at = 0; at < bytes.size(); at += 13, ++flips) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    scratch_.write("flip.h5", damaged);
    try {
      const TokenDataset dataset(scratch_ / "flip.h5");
      ASSERT_EQ(all_text(dataset), text) << "byte " << at << " flipped, and another text is read";
      ASSERT_EQ(dataset.training_tokens(), 2700u) << at;
    } catch (const DataError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, flips / 2) << "of " << flips;  // the others hit bytes that hold nothing
}

TEST(TokenDataset, StreamsWhatIsLargerThanTheLimit) {
  const ScratchFolder scratch("dataset-limit");
  std::string narrow(1000, 'a'), wide;
  for (char32_t c = 0xE000; c < 0xE000 + 70'000; ++c) append_utf8(wide, c);
  prepare_tokens(scratch.write("n", narrow), scratch / "n.h5", TokenizerKind::bytes, 0);
  prepare_tokens(scratch.write("w", wide), scratch / "w.h5", TokenizerKind::characters, 0);
  EXPECT_FALSE(TokenDataset(scratch / "n.h5", 2 * 1000).streams());
  EXPECT_TRUE(TokenDataset(scratch / "n.h5", 2 * 1000 - 1).streams());
  EXPECT_FALSE(TokenDataset(scratch / "w.h5", 4 * 70'000).streams());
  EXPECT_TRUE(TokenDataset(scratch / "w.h5", 4 * 70'000 - 1).streams());
  EXPECT_EQ(TokenDataset(scratch / "n.h5").header().source, "n");
}

TEST(TokenDataset, NothingIsReadPastTheEnd) {
  const ScratchFolder scratch("dataset-end");
  prepare_tokens(scratch.write("text", std::string(1000, 'a')), scratch / "t.h5", TokenizerKind::bytes, 0);
  for (const std::size_t limit : {std::size_t{0}, TokenDataset::default_memory_limit}) {
    const TokenDataset dataset(scratch / "t.h5", limit);
    const auto read = [&](std::uint64_t first, std::size_t count) {
      std::vector<Token> tokens(count, -1);
      dataset.read(first, tokens);
      return std::count(tokens.begin(), tokens.end(), 'a');
    };
    EXPECT_EQ(read(0, 1000), 1000);
    EXPECT_EQ(read(999, 1), 1);
    EXPECT_EQ(read(1000, 0), 0);
    EXPECT_THROW(read(0, 1001), std::out_of_range);
    EXPECT_THROW(read(999, 2), std::out_of_range);
    EXPECT_THROW(read(1000, 1), std::out_of_range);
    EXPECT_THROW(read(1001, 0), std::out_of_range);
    EXPECT_THROW(read(~std::uint64_t{0}, 2), std::out_of_range) << "the sum overflows";
  }
}

TEST(TokenDataset, TheBlockUsedLongestAgoMakesRoom) {
  const ScratchFolder scratch("dataset-cache");
  constexpr std::uint64_t kept = 32, block = token_file::block_bytes / 2;  // tokens of two bytes
  std::string text(static_cast<std::size_t>((kept + 1) * block), 'a');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i * i % 23);
  prepare_tokens(scratch.write("text", text), scratch / "t.h5", TokenizerKind::bytes, 0);
  const TokenDataset dataset(scratch / "t.h5", 1);
  ASSERT_EQ(dataset.header().block_tokens, block);
  const auto first_of = [&](std::uint64_t number) {
    Token token = -1;
    dataset.read(number * block, std::span(&token, 1));
    return token;
  };
  for (std::uint64_t number = 0; number < kept; ++number) first_of(number);
  first_of(0);
  first_of(kept);  // takes the place of block 1
  const std::uintmax_t size = std::filesystem::file_size(scratch / "t.h5");
  std::fstream file(scratch / "t.h5", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(size / 100));
  for (std::uintmax_t at = size / 100; at < size; ++at) file.put('\x5A');
  file.close();
  EXPECT_EQ(first_of(0), 'a') << "is no longer in memory, though it was used after block 1";
  EXPECT_THROW(first_of(1), DataError);
}

TEST(PrepareTokens, TokensGrowWiderBeyond65536Characters) {
  const ScratchFolder scratch("prepare-width");
  std::string text;
  for (char32_t c = 0xE000; c < 0xE000 + 65'536; ++c) append_utf8(text, c);
  prepare_tokens(scratch.write("two", text), scratch / "two.h5", TokenizerKind::characters, 0);
  prepare_tokens(scratch.write("four", text + "a"), scratch / "four.h5", TokenizerKind::characters, 0);
  EXPECT_EQ(Hdf5File::open(scratch / "two.h5").dataset("/tokens").type(), Hdf5Type::uint16);
  EXPECT_EQ(Hdf5File::open(scratch / "four.h5").dataset("/tokens").type(), Hdf5Type::uint32);
  const TokenDataset two(scratch / "two.h5"), four(scratch / "four.h5");
  EXPECT_EQ(all_text(two), text);
  EXPECT_EQ(all_text(four), text + "a");
  EXPECT_EQ(two.header().block_tokens, token_file::block_bytes / 2);
  EXPECT_EQ(four.header().block_tokens, token_file::block_bytes / 4);
}

}  // namespace
}  // namespace dekoder
