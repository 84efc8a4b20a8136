// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/tokenizer_json.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "base/error.hpp"
#include "base/json_node.hpp"
#include "base/utf8.hpp"
#include "tokenizer/byte_alphabet.hpp"

namespace dekoder {

namespace {

using Json = nlohmann::json;

using Node = JsonNode;

constexpr std::int64_t most_tokens = 16777216;  ///< ids are below

Token token_of(const Node& node) {
  return Token(node.whole(0, most_tokens - 1, "a token"));
}

bool read_normalizer(const Node& node) {
  if (node.is_null()) return false;
  if (node["type"].value == "Sequence" && node["normalizers"].list().size() <= 1)
    return node["normalizers"].list().empty() ? false : read_normalizer(node["normalizers"].at(0));
  if (node["type"].value != "NFC") node["type"].refuse("no normalizer, or NFC");
  return true;
}

/// Whether a ByteLevel pre-tokenizer splits by GPT-2's pattern itself.
bool splits_itself(const Node& byte_level) {
  if (byte_level["add_prefix_space"].flag(true)) byte_level["add_prefix_space"].refuse("false");
  return byte_level["use_regex"].flag(true);
}

SplitPattern read_pre_tokenizer(const Node& node) {
  constexpr const char* expected =
      "ByteLevel, or Split by the pattern of GPT-2, cl100k (Llama 3) or Qwen 2 followed by ByteLevel";
  if (node.is_null()) node.refuse(expected);
  if (node["type"].value == "ByteLevel") {
    if (!splits_itself(node)) node["use_regex"].refuse("true, where nothing else splits");
    return SplitPattern::gpt2;
  }
  if (node["type"].value != "Sequence") node["type"].refuse(expected);
  const Node parts = node["pretokenizers"];
  if (parts.list().size() != 2) parts.refuse("two: Split and ByteLevel");
  const Node split = parts.at(0), bytes = parts.at(1);
  if (split["type"].value != "Split") split["type"].refuse(expected);
  if (bytes["type"].value != "ByteLevel") bytes["type"].refuse(expected);
  if (splits_itself(bytes)) bytes["use_regex"].refuse("false behind a Split");
  if (split["invert"].flag(false)) split["invert"].refuse("false");
  if (split["behavior"].value != "Isolated") split["behavior"].refuse("Isolated");
  const Node regex = split["pattern"]["Regex"];
  for (const SplitPattern pattern : split_patterns)
    if (regex.value == split_pattern_regex(pattern)) return pattern;
  regex.refuse("the pattern of GPT-2, cl100k (Llama 3) or Qwen 2");
}

std::vector<AddedToken> read_added(const Node& node) {
  std::vector<AddedToken> added;
  if (node.is_null()) return added;
  for (std::size_t i = 0; i < node.list().size(); ++i) {
    const Node entry = node.at(i);
    for (const char* flag : {"lstrip", "rstrip", "single_word"})
      if (entry[flag].flag(false)) entry[flag].refuse("false");
    added.push_back({token_of(entry["id"]), entry["content"].text(), entry["special"].flag(false),
                     entry["normalized"].flag(false)});
  }
  std::sort(added.begin(), added.end(), [](const AddedToken& a, const AddedToken& b) { return a.token < b.token; });
  return added;
}

/// Texts of tokens by their ids, from the vocabulary and the added tokens, which may stand there too. Keeps views
/// of the document.
class Vocabulary {
 public:
  /// `vocab` of the document `where`; `name` is what merges are told that it is called.
  Vocabulary(const Node& vocab, const std::vector<AddedToken>& added, std::string_view where, std::string_view name)
      : where_(where), name_(name) {
    if (!vocab.value.is_object()) vocab.refuse("an object of texts with their ids");
    const auto& entries = vocab.value.get_ref<const Json::object_t&>();
    texts_.resize(std::min<std::size_t>(entries.size() + added.size(), most_tokens));
    tokens_.reserve(entries.size());
    std::unordered_map<std::string_view, Token> of_added;
    for (const AddedToken& a : added) {
      of_added.emplace(a.text, a.token);
      put(a.token, a.text);
    }
    for (const auto& [key, id] : entries) {
      const std::string& text = key;
      const auto place = [&] { return fmt::format("{}['{}']", vocab.place, excerpt(text, 40)); };
      const bool is_token = id.is_number_unsigned() && id.get<std::uint64_t>() < std::uint64_t(most_tokens);
      const Token token = is_token ? id.get<Token>() : token_of(Node{id, place()});
      std::optional<std::string> bytes = from_byte_alphabet(text);
      if (const auto there = of_added.find(text); there != of_added.end()) {
        if (there->second != token)
          throw DataError("{} is {}, but {} in added_tokens; expected the same", place(), token, there->second);
        if (bytes == text) tokens_.emplace(text, token);
        continue;
      }
      if (!bytes) throw DataError("{} is not in GPT-2's alphabet of bytes; expected a text of bytes", place());
      put(token, std::move(*bytes));
      tokens_.emplace(text, token);
    }
    while (!texts_.empty() && !texts_.back()) texts_.pop_back();  // those that stand in both lists
    for (std::size_t token = 0; token < texts_.size(); ++token)
      if (!texts_[token])
        throw DataError("{}: token {} has no text; expected all from 0 to {}", where, token, texts_.size() - 1);
  }

  /// The token of a text in the alphabet that a merge names; place() says where it stands.
  template <class Place>
  Token token(std::string_view text, const Place& place) const {
    const auto found = tokens_.find(text);
    if (found == tokens_.end()) throw DataError("{}: '{}' is no token of {}", place(), excerpt(text), name_);
    return found->second;
  }
  std::optional<Token> find(std::string_view text) const {
    const auto found = tokens_.find(text);
    return found == tokens_.end() ? std::nullopt : std::optional(found->second);
  }
  std::size_t size() const { return texts_.size(); }
  const std::string& text(Token token) const { return *texts_[std::size_t(token)]; }
  std::vector<std::string> take_texts() && {
    std::vector<std::string> all;
    all.reserve(texts_.size());
    for (auto& text : texts_) all.push_back(std::move(*text));
    return all;
  }

 private:
  void put(Token token, std::string text) {
    if (std::size_t(token) >= texts_.size())
      throw DataError("{}: '{}' is token {}, but there are {} at most; expected ids from 0 without holes", where_,
                      excerpt(text), token, texts_.size());
    std::optional<std::string>& place = texts_[std::size_t(token)];
    if (place)
      throw DataError("{}: token {} is '{}' and '{}'; expected each id once", where_, token, excerpt(*place),
                      excerpt(text));
    place = std::move(text);
  }

  std::string_view where_, name_;
  std::vector<std::optional<std::string>> texts_;
  /// By their texts in the alphabet; those that merges may name.
  std::unordered_map<std::string_view, Token> tokens_;
};

/// Added tokens that are no bytes, and that no merge makes: one with a blank, say, may stand beside a token of the
/// same bytes, which merges make.
std::vector<Token> unmade(const std::vector<AddedToken>& added, const Vocabulary& vocabulary,
                          const std::vector<BytePair>& merges) {
  std::unordered_map<std::string_view, bool> made;  // of texts of added tokens alone: merges may be millions
  std::unordered_set<std::size_t> lengths;
  for (const AddedToken& a : added) made.emplace(a.text, false), lengths.insert(a.text.size());
  for (const auto& [left, right] : merges) {
    const std::string &front = vocabulary.text(left), &back = vocabulary.text(right);
    if (!lengths.contains(front.size() + back.size())) continue;
    if (const auto found = made.find(front + back); found != made.end()) found->second = true;
  }
  std::vector<Token> tokens;
  for (const AddedToken& a : added)
    if (!vocabulary.find(a.text) || (a.text.size() > 1 && !made[a.text])) tokens.push_back(a.token);
  return tokens;
}

/// Merge i of a list: "a b", or ["a", "b"].
BytePair read_merge(const Node& list, std::size_t i, const Vocabulary& vocabulary) {
  const Json& value = list.list()[i];
  const auto place = [&] { return list.at(i).place; };
  if (value.is_array()) {
    const Node node = list.at(i);
    if (node.list().size() != 2) node.refuse("two tokens");
    return {vocabulary.token(node.at(0).text(), place), vocabulary.token(node.at(1).text(), place)};
  }
  if (!value.is_string()) list.at(i).text();  // refused
  const std::string_view text = value.get_ref<const std::string&>();
  const std::size_t blank = text.find(' ');
  if (blank == std::string::npos || text.find(' ', blank + 1) != std::string::npos)
    list.at(i).refuse("two tokens with a space between them");
  return {vocabulary.token(text.substr(0, blank), place), vocabulary.token(text.substr(blank + 1), place)};
}

/// Tokens that no merge makes as texts do not have them: <|endoftext|>, <s>, [MASK], and madeupword0000, with which
/// fairseq fills vocabularies up.
bool is_mark(std::string_view text) {
  return (text.starts_with('<') && text.ends_with('>')) || (text.starts_with('[') && text.ends_with(']')) ||
         text.starts_with("madeupword");
}

/// A list of merges that was cut off at the end of a line lacks what makes the last tokens.
void require_all_made(const Vocabulary& vocabulary, const std::vector<AddedToken>& added, const MergeList& merges,
                      std::string_view where) {
  std::vector<bool> made(vocabulary.size());
  for (const AddedToken& a : added) made[std::size_t(a.token)] = true;
  std::string joined;
  for (const auto& [left, right] : merges.merges) {
    (joined = left) += right;
    if (const auto token = vocabulary.find(joined)) made[std::size_t(*token)] = true;
  }
  std::size_t lacking = 0;
  Token first = 0;
  for (Token token = Token(made.size()) - 1; token >= 0; --token)
    if (const std::string& text = vocabulary.text(token);
        !made[std::size_t(token)] && text.size() > 1 && !is_mark(text))
      ++lacking, first = token;
  if (lacking > 0)
    throw DataError(
        "{}: its {} merges make all but {} of the tokens of {}; expected one for each, {} ('{}') is the first "
        "without: copy the list again, or the ids that belong to it",
        merges.places.file, merges.merges.size(), lacking, where, first, excerpt(vocabulary.text(first)));
}

std::string quoted(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

BytePairTokenizer read_document(const Json& document, std::string_view where) {
  if (!document.is_object()) throw DataError("{}: is no object; expected a tokenizer.json", where);
  const Node root{document, fmt::format("{}:", where)};
  const Node model = root["model"];
  if (model.is_null()) model.refuse("an object");
  if (!model["type"].is_null() && model["type"].value != "BPE") model["type"].refuse("BPE");
  if (!model["dropout"].is_null() && model["dropout"].value != 0) model["dropout"].refuse("none");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!model[key].is_null() && !model[key].text().empty()) model[key].refuse("none");
  if (model["byte_fallback"].flag(false))
    model["byte_fallback"].refuse("false: tokens of bytes by GPT-2's alphabet");
  const bool composes = read_normalizer(root["normalizer"]);
  const SplitPattern pattern = read_pre_tokenizer(root["pre_tokenizer"]);
  std::vector<AddedToken> added = read_added(root["added_tokens"]);
  Vocabulary vocabulary(model["vocab"], added, where, "model.vocab");
  std::vector<BytePair> merges;
  const Node pairs = model["merges"];
  for (std::size_t i = 0; i < pairs.list().size(); ++i) merges.push_back(read_merge(pairs, i, vocabulary));
  const std::vector<Token> unused = unmade(added, vocabulary, merges);
  BytePairs byte_pairs(std::move(vocabulary).take_texts(), std::move(merges), model["ignore_merges"].flag(false),
                       unused, where);
  return {std::move(byte_pairs), pattern, std::move(added), composes, where};
}

}  // namespace

BytePairTokenizer read_tokenizer_json(std::string_view text, std::string_view where) {
  return read_document(read_json(text, where, "a tokenizer.json"), where);
}

BytePairTokenizer read_gpt2_vocabulary(std::string_view text, const MergeList& list, std::string_view where) {
  const Json document = read_json(text, where, "an object of texts with their ids");
  const Node ids{document, std::string(where)};
  std::vector<AddedToken> added;
  if (document.is_object() && document.contains(end_of_text_name))
    added.push_back({token_of(Node{document[end_of_text_name], fmt::format("{}: {}", where, end_of_text_name)}),
                     end_of_text_name, true});
  Vocabulary vocabulary(ids, added, where, where);
  std::vector<BytePair> merges;
  for (const auto& [left, right] : list.merges) {
    const auto place = [&] { return list.places.place(merges.size()); };
    merges.push_back({vocabulary.token(left, place), vocabulary.token(right, place)});
  }
  require_all_made(vocabulary, added, list, where);
  const std::vector<Token> unused = unmade(added, vocabulary, merges);
  return {BytePairs(std::move(vocabulary).take_texts(), std::move(merges), false, unused, where, &list.places),
          SplitPattern::gpt2, std::move(added), false, where};
}

std::string write_tokenizer_json(const BytePairTokenizer& tokenizer) {
  const BytePairs& pairs = tokenizer.pairs();
  const auto join = [](std::string& list, const std::string& entry) {
    list += list.empty() ? "\n" : ",\n";
    list += entry;
  };
  std::string added, vocab, merges;
  std::vector<bool> is_added(std::size_t(pairs.size()));  // their texts stand as they are
  for (const AddedToken& a : tokenizer.added()) {
    is_added[std::size_t(a.token)] = true;
    join(added,
         fmt::format("    {{\"id\": {}, \"content\": {}, \"single_word\": false, \"lstrip\": false, \"rstrip\": "
                     "false, \"normalized\": {}, \"special\": {}}}",
                     a.token, quoted(a.text), a.normalized, a.special));
  }
  for (Token token = 0; token < pairs.size(); ++token) {
    const std::string& text = pairs.text(token);
    join(vocab,
         fmt::format("      {}: {}", quoted(is_added[std::size_t(token)] ? text : in_byte_alphabet(text)), token));
  }
  for (const auto& [left, right] : pairs.merges())
    join(merges, "      " + quoted(in_byte_alphabet(pairs.text(left)) + " " + in_byte_alphabet(pairs.text(right))));
  const bool itself = tokenizer.pattern() == SplitPattern::gpt2;
  const std::string bytes = fmt::format(
      R"({{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": {}}})", itself);
  const std::string split =
      fmt::format(R"({{"type": "Split", "pattern": {{"Regex": {}}}, "behavior": "Isolated", "invert": false}})",
                  quoted(split_pattern_regex(tokenizer.pattern())));
  return fmt::format(
      R"({{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [{}],
  "normalizer": {},
  "pre_tokenizer": {},
  "post_processor": null,
  "decoder": {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}},
  "model": {{
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": {},
    "vocab": {{{}
    }},
    "merges": [{}
    ]
  }}
}}
)",
      added, tokenizer.composes() ? R"({"type": "NFC"})" : "null",
      itself ? bytes : fmt::format(R"({{"type": "Sequence", "pretokenizers": [{}, {}]}})", split, bytes),
      pairs.whole_pieces(), vocab, merges);
}

}  // namespace dekoder
