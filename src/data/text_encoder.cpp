// SPDX-License-Identifier: Apache-2.0
#include "data/text_encoder.hpp"

#include <algorithm>
#include <memory>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "io/files/packed_file.hpp"
#include "tokenizer/unicode_classes.hpp"

namespace dekoder {

namespace {

/// Whether a text of an added token that is recognised lies across `cut`.
bool is_in_added_token(const BytePairTokenizer& tokenizer, std::string_view text, std::size_t cut) {
  for (const AddedToken& added : tokenizer.added()) {
    if (added.special) continue;
    const std::size_t begin = cut - std::min(cut, added.text.size() - 1);
    const std::size_t end = std::min(text.size(), cut + added.text.size() - 1);
    if (text.substr(begin, end - begin).find(added.text) != std::string_view::npos) return true;
  }
  return false;
}

/// Whether a character that is no letter begins at `at` and neither joins what stands before it in Unicode's form
/// NFC nor is such a mark: ASCII, white space, numbers, and the punctuation of scripts that have no blanks.
bool ends_word(std::string_view text, std::size_t at) {
  const ClassifiedCharacter next = classified_front(text.substr(at));
  if (next.kind == CharacterClass::letter) return false;
  if (next.kind != CharacterClass::other) return true;
  if (next.bytes == 1) return static_cast<unsigned char>(text[at]) < 0x80;
  const std::string_view character = text.substr(at, next.bytes);
  constexpr std::string_view marks[] = {"\u3001", "\u3002", "\uFF01", "\uFF0C", "\uFF1A", "\uFF1B", "\uFF1F"};
  return std::find(std::begin(marks), std::end(marks), character) != std::end(marks);
}

/// Bytes up to the end of the last word, 0 where there is none: behind a letter every pattern begins a new piece
/// with what is no letter. Unlike last_safe_cut it finds places in texts of any script, and in lines of any length.
std::size_t last_word_end(const BytePairTokenizer& tokenizer, std::string_view text) {
  for (std::size_t at = text.size() - std::min<std::size_t>(text.size(), 4); at > 0;
       --at) {  // a character is whole
    if ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80 || !ends_word(text, at)) continue;
    std::size_t front = at - 1;
    while (front > 0 && at - front < 4 && (static_cast<unsigned char>(text[front]) & 0xC0) == 0x80) --front;
    const ClassifiedCharacter before = classified_front(text.substr(front));
    if (before.kind == CharacterClass::letter && before.bytes == at - front &&
        !is_in_added_token(tokenizer, text, at))
      return at;
  }
  return 0;
}

/// A byte that is no UTF-8 was met in this file: says where, reading it again.
[[noreturn]] void throw_utf8_fault(const TextSource& source) {
  const std::filesystem::path& path = source.path;
  PackedFile file(path);
  file.require_state(source.state);
  std::string piece;
  std::size_t offset = 0, line = 1, column = 1;
  for (bool more = true; more;) {
    const std::size_t kept = piece.size();
    constexpr std::size_t bytes = std::size_t{1} << 18;
    piece.resize(kept + bytes);
    const std::size_t got = file.read(std::span(piece).subspan(kept));
    piece.resize(kept + got);
    more = got == bytes;
    std::size_t at = 0;
    while (at < piece.size()) {
      const Utf8Front front = utf8_front(std::string_view(piece).substr(at));
      if (front.kind == Utf8Front::Kind::incomplete && more) break;
      if (front.kind != Utf8Front::Kind::character)
        throw DataError(
            "{}: {} (line {}, column {}), which the char tokenizer needs; convert the text (iconv -t UTF-8) or use "
            "the byte tokenizer",
            path.string(), Utf8Fault{offset + at, line, column, static_cast<unsigned char>(piece[at])}.text(), line,
            column);
      ++column;
      if (front.code_point == U'\n') ++line, column = 1;
      at += front.bytes;
    }
    offset += at;
    piece.erase(0, at);
  }
  throw DataError("{}: changed while it was read; prepare it again", path.string());
}

}  // namespace

TextCut text_cut(const Tokenizer& tokenizer) {
  if (tokenizer.kind() == TokenizerKind::bytes) return [](std::string_view text) { return text.size(); };
  if (tokenizer.kind() == TokenizerKind::characters) return last_character_border;
  if (tokenizer.kind() == TokenizerKind::sentencepiece)
    return [](std::string_view text) {
      const std::size_t line_end = text.find_last_of('\n');
      return line_end == std::string_view::npos ? 0 : line_end + 1;
    };
  return [rules = tokenizer.byte_pairs()](std::string_view text) {
    std::size_t cut = last_safe_cut(text);
    while (cut > 0 && is_in_added_token(*rules, text, cut)) cut = last_safe_cut(text.substr(0, cut));
    return cut > 0 ? cut : last_word_end(*rules, text);
  };
}

void for_each_character(const TextBatch& batch, const TextPart& part, const Corpus& corpus,
                        const std::function<void(char32_t)>& visit) {
  for (std::string_view text = batch.text_of(part); !text.empty();) {
    const Utf8Front front = utf8_front(text);
    if (front.kind != Utf8Front::Kind::character) throw_utf8_fault(corpus.sources()[part.source]);
    visit(front.code_point);
    text.remove_prefix(front.bytes);
  }
}

std::function<void(TextBatch&)> text_encoder(const Tokenizer& tokenizer, const Corpus& corpus) {
  std::function<void(const TextBatch&, const TextPart&, std::vector<Token>&)> encode;
  switch (tokenizer.kind()) {
    case TokenizerKind::bytes:
      encode = [](const TextBatch& batch, const TextPart& part, std::vector<Token>& tokens) {
        for (const char byte : batch.text_of(part)) tokens.push_back(static_cast<unsigned char>(byte));
      };
      break;
    case TokenizerKind::characters:
      encode = [&](const TextBatch& batch, const TextPart& part, std::vector<Token>& tokens) {
        for_each_character(batch, part, corpus, [&](char32_t code_point) {
          tokens.push_back(tokenizer.find(code_point));
          if (tokens.back() < 0)
            throw DataError("{}: changed while it was read; prepare it again",
                            input_name(corpus.sources()[part.source].path));
        });
      };
      break;
    case TokenizerKind::byte_pairs:
      encode = [encoder = std::make_shared<BytePairEncoder>(*tokenizer.byte_pairs())](
                   const TextBatch& batch, const TextPart& part, std::vector<Token>& tokens) {
        encoder->encode(batch.text_of(part), SpecialTokens::as_text, tokens);
      };
      break;
    case TokenizerKind::sentencepiece:
      encode = [&](const TextBatch& batch, const TextPart& part, std::vector<Token>& tokens) {
        const std::vector<Token> more =
            tokenizer.sentencepiece()->encode(batch.text_of(part), input_name(corpus.sources()[part.source].path));
        tokens.insert(tokens.end(), more.begin(), more.end());
      };
      break;
  }
  return [encode](TextBatch& batch) {
    for (TextPart& part : batch.parts) {
      encode(batch, part, batch.tokens);
      part.tokens_end = batch.tokens.size();
    }
  };
}

}  // namespace dekoder
