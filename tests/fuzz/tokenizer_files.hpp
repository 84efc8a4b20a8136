// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "tokenizer/byte_pair_files.hpp"
#include "tokenizer/tokenizer_json.hpp"

namespace dekoder::fuzz {

/// A rule of the tokenizers is broken: not a UserError, so that it ends the program.
inline void demand(bool holds, const char* rule) {
  if (!holds) throw std::logic_error(rule);
}

/// What must hold for every tokenizer that could be read, and every text.
inline void check(const BytePairTokenizer& tokenizer, std::string_view text) {
  demand(read_tokenizer_json(write_tokenizer_json(tokenizer), "written") == tokenizer,
         "what is written is read as the same");
  BytePairEncoder encoder(tokenizer);
  for (const SpecialTokens special : {SpecialTokens::recognised, SpecialTokens::as_text}) {
    std::vector<Token> tokens, again;
    encoder.encode(text, special, tokens);
    std::string back;
    for (const Token token : tokens) {
      demand(token >= 0 && token < tokenizer.pairs().size(), "a token is of the vocabulary");
      demand(special == SpecialTokens::recognised || !tokenizer.is_special(token) ||
                 tokenizer.pairs().text(token).size() == 1 ||
                 text.find(tokenizer.pairs().text(token)) != std::string_view::npos,
             "a special token stands for its text");
      back += tokenizer.pairs().text(token);
    }
    demand(tokenizer.composes() || back == text, "a text comes back");
    encoder.encode(text, special, again);
    demand(again == tokens, "known pieces have the tokens of new ones");
  }
  std::vector<Token> as_whole;
  tokenizer.pairs().encode(text, as_whole);
  std::string joined;
  for (const Token token : as_whole) joined += tokenizer.pairs().text(token);
  demand(joined == text, "a piece comes back");
}

/// Reads a file and encodes what follows it. The input: a letter for its kind, the file, a line `====`, for the
/// kinds of two files the other and such a line once more, and the text. Kinds: `j` tokenizer.json, `m` merges, `v`
/// merges and vocabulary, `t` tiktoken's ranks; `a` and `b` tokenizer.json and ranks whose bytes are there already,
/// so that a few words make a good one (`a`: entries of the vocabulary, merges, added tokens).
inline void read_and_encode(std::string_view input) {
  if (input.empty()) return;
  const auto next_part = [&] {
    constexpr std::string_view line = "\n====\n";
    const std::size_t end = input.find(line);
    const std::string_view part = input.substr(0, end);
    input.remove_prefix(end == std::string_view::npos ? input.size() : end + line.size());
    return part;
  };
  const char kind = input[0];
  input.remove_prefix(1);
  const std::string_view file = next_part();
  try {
    switch (kind) {
      case 'j':
        return check(read_tokenizer_json(file, "here"), input);
      case 'm':
        return check(read_merges(file, "here"), input);
      case 'v': {
        const std::string_view vocabulary = next_part();
        return check(read_merges(file, "here", vocabulary, "here"), input);
      }
      case 't':
        return check(read_tiktoken_ranks(file, SplitPattern::cl100k, "here"), input);
      case 'a': {
        const BytePairTokenizer bytes = tokenizer_of_merges({}, SplitPattern::gpt2, "here");
        std::string whole = write_tokenizer_json(bytes);
        const std::string_view merges = next_part();
        const std::string_view added = next_part();
        const auto put = [&whole](std::string_view behind, std::string_view text) {
          whole.insert(whole.find(behind) + behind.size(), text);
        };
        put("\"merges\": [", merges);
        put("\"vocab\": {", file);
        put("\"added_tokens\": [", added);
        return check(read_tokenizer_json(whole, "here"), input);
      }
      case 'b': {
        static const std::string bytes = [] {
          constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
          std::string lines;
          for (unsigned byte = 0; byte < 256; ++byte)
            lines += fmt::format("{}{}== {}\n", digits[byte >> 2], digits[(byte & 3) << 4], byte);
          return lines;
        }();
        constexpr SplitPattern patterns[] = {SplitPattern::gpt2, SplitPattern::cl100k, SplitPattern::qwen2};
        return check(read_tiktoken_ranks(bytes + std::string(file), patterns[input.size() % 3], "here"), input);
      }
      default:
        return;
    }
  } catch (const DataError& error) {
    const std::string message = error.what();
    demand(message.starts_with("here") && message.find('\n') == std::string::npos && !find_utf8_fault(message) &&
               message.size() < 2000,
           "a message is one line of text that begins with the file's name");
  }
}

}  // namespace dekoder::fuzz
