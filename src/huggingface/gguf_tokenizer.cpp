// SPDX-License-Identifier: Apache-2.0
#include "huggingface/gguf_tokenizer.hpp"

#include <fmt/format.h>

#include <set>

#include "huggingface/tokenizer_folder.hpp"
#include "tokenizer/byte_alphabet.hpp"

namespace dekoder {

namespace {

/// Numbers of gguf's TokenType, which are those of SentencePiece.
enum TokenType : std::int32_t { normal_token = 1, control_token = 3, added_token = 4, unused_token = 5 };

struct Words {
  std::vector<std::string> texts;
  std::vector<std::int32_t> types;
};

/// Rows of the model's table that no token has get a text.
void add_unused(Words& words, int vocabulary) {
  for (auto token = int(words.texts.size()); token < vocabulary; ++token) {
    words.texts.push_back(fmt::format("[PAD{}]", token));
    words.types.push_back(unused_token);
  }
}

GgufTokenizer no_tokenizer(const std::string& why) {
  return {{{"tokenizer.ggml.model", "none"}},
          fmt::format("holds no tokenizer, as {}; llama.cpp then takes and gives tokens, not texts", why)};
}

/// Whether each token's own text becomes this token by merges alone.
bool merges_make_all_tokens(const BytePairTokenizer& rules) {
  std::vector<Token> unused;
  for (const AddedToken& mark : rules.added()) unused.push_back(mark.token);
  std::vector<std::string> texts;
  for (Token token = 0; token < rules.pairs().size(); ++token) texts.push_back(rules.pairs().text(token));
  const BytePairs merging(texts, rules.pairs().merges(), false, unused, "tokenizer");
  const std::set<Token> marks(unused.begin(), unused.end());
  std::vector<Token> found;
  for (Token token = 0; token < merging.size(); ++token) {
    found.clear();
    if (!marks.contains(token)) merging.encode(merging.text(token), found);
    if (!marks.contains(token) && found != std::vector{token}) return false;
  }
  return true;
}

/// llama.cpp's name for a pattern and whether whole pieces are tokens without merges; null: it has none.
const char* split_name(const BytePairTokenizer& rules) {
  const bool whole_pieces = rules.pairs().whole_pieces();
  if (rules.pattern() == SplitPattern::cl100k) return whole_pieces ? "llama-bpe" : "dbrx";
  if (whole_pieces && !merges_make_all_tokens(rules)) return nullptr;
  return rules.pattern() == SplitPattern::gpt2 ? "gpt-2" : "qwen2";
}

GgufTokenizer of_byte_pairs(const BytePairTokenizer& rules, int vocabulary) {
  const BytePairs& pairs = rules.pairs();
  const char* split = split_name(rules);
  if (split == nullptr)
    return no_tokenizer(fmt::format("llama.cpp knows no tokenizer that takes whole pieces of the pattern {}",
                                    split_pattern_name(rules.pattern())));
  Words words;
  // No text in UTF-8 has this byte: where no token ends a text, its token does, as llama.cpp would take token 11.
  constexpr char never = '\xFF';
  Token end = rules.end_of_text();
  for (Token token = 0; token < pairs.size(); ++token) {
    if (end < 0 && pairs.text(token) == std::string(1, never)) end = token;
    words.texts.push_back(in_byte_alphabet(pairs.text(token)));
    words.types.push_back(normal_token);
  }
  for (const AddedToken& mark : rules.added()) {
    words.texts[std::size_t(mark.token)] = mark.text;
    words.types[std::size_t(mark.token)] = mark.special ? control_token : added_token;
  }
  add_unused(words, vocabulary);
  if (std::set(words.texts.begin(), words.texts.end()).size() != words.texts.size())
    return no_tokenizer("two of its tokens have the same text there");
  std::vector<std::string> merges;
  for (const BytePair& pair : pairs.merges())
    merges.push_back(in_byte_alphabet(pairs.text(pair.left)) + " " + in_byte_alphabet(pairs.text(pair.right)));
  return {{{"tokenizer.ggml.model", "gpt2"},
           {"tokenizer.ggml.pre", split},
           {"tokenizer.ggml.tokens", words.texts},
           {"tokenizer.ggml.token_type", words.types},
           {"tokenizer.ggml.merges", merges},
           {"tokenizer.ggml.bos_token_id", std::uint32_t(end)},
           {"tokenizer.ggml.eos_token_id", std::uint32_t(end)},
           {"tokenizer.ggml.add_bos_token", false},
           {"tokenizer.ggml.add_eos_token", false}},
          rules.composes()
              ? "its tokenizer brings text to Unicode's form NFC, which llama.cpp does not do: give it "
                "texts in that form"
              : ""};
}

}  // namespace

GgufTokenizer gguf_tokenizer(const Tokenizer& tokenizer, int vocabulary) {
  if (tokenizer.byte_pairs() != nullptr) return of_byte_pairs(*tokenizer.byte_pairs(), vocabulary);
  if (tokenizer.kind() == TokenizerKind::bytes) return of_byte_pairs(byte_rules(), vocabulary);
  if (tokenizer.kind() == TokenizerKind::characters)
    return no_tokenizer("those of llama.cpp all have a token that ends a text, and one of characters has none");
  return no_tokenizer("that of SentencePiece");
}

}  // namespace dekoder
