// SPDX-License-Identifier: Apache-2.0
#include "huggingface/tokenizer_folder.hpp"

#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.hpp"
#include "base/json_node.hpp"
#include "base/log.hpp"
#include "base/utf8.hpp"
#include "io/files/input_file.hpp"
#include "tokenizer/byte_pair_files.hpp"
#include "tokenizer/tokenizer_json.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* json_name = "tokenizer.json";
constexpr const char* model_name = "tokenizer.model";
constexpr const char* any_character = R"([\s\S])";

std::string character(const Tokenizer& tokenizer, Token token) {
  std::string text;
  tokenizer.append_bytes(text, token);
  return text;
}

/// Whole characters are the words of a vocabulary; the decoder joins them without blanks.
std::string character_rules(const Tokenizer& tokenizer) {
  Json vocabulary = Json::object();
  for (Token token = 0; token < tokenizer.vocabulary(); ++token) vocabulary[character(tokenizer, token)] = token;
  const Json rules = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", Json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Split"}, {"pattern", {{"Regex", any_character}}}, {"behavior", "Isolated"}, {"invert", false}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "Fuse"}}},
      // A word of its own for unknown ones, which is in no vocabulary: they are refused.
      {"model", {{"type", "WordLevel"}, {"vocab", vocabulary}, {"unk_token", "[UNK]"}}}};
  return rules.dump(2) + "\n";
}

/// The reverse of character_rules; nothing where the model is no WordLevel.
std::optional<Tokenizer> read_characters(const std::string& text, const std::string& where) {
  if (text.find("\"WordLevel\"") == std::string::npos) return std::nullopt;
  const nlohmann::json document = read_json(text, where, "a tokenizer.json");
  const JsonNode root{document, where + ":"}, model = root["model"];
  if (model["type"].value != "WordLevel") return std::nullopt;
  const JsonNode splits = root["pre_tokenizer"], vocabulary = model["vocab"];
  if (!splits.value.is_object() || splits["type"].value != "Split" ||
      splits["pattern"]["Regex"].value != any_character || splits["behavior"].value != "Isolated")
    splits.refuse("with WordLevel a Split at every character");
  if (!root["normalizer"].is_null()) root["normalizer"].refuse("none");
  if (!vocabulary.value.is_object()) vocabulary.refuse("an object of characters with their ids");
  std::map<std::int64_t, char32_t> code_points;
  for (const auto& [word, id] : vocabulary.value.items()) {
    const JsonNode node{id, fmt::format("{}['{}']", vocabulary.place, excerpt(word))};
    if (word.empty() || utf8_front(word).bytes != word.size()) node.refuse("words of one character");
    const std::int64_t token = node.whole(0, std::int64_t(vocabulary.value.size()) - 1, "a token");
    if (!code_points.emplace(token, utf8_front(word).code_point).second) node.refuse("each id once");
  }
  std::vector<char32_t> ascending;
  for (const auto& [token, code_point] : code_points) {
    if (!ascending.empty() && code_point <= ascending.back())
      throw DataError(
          "{}: token {} is {}, which comes before that of token {}; expected characters in ascending order",
          vocabulary.place, token, character_name(code_point), token - 1);
    ascending.push_back(code_point);
  }
  if (ascending.empty()) vocabulary.refuse("at least one character");
  return Tokenizer::of_characters(std::move(ascending));
}

}  // namespace

BytePairTokenizer byte_rules() {
  std::vector<std::string> texts;
  for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
  return {BytePairs(std::move(texts), {}, false, {}, "byte"), SplitPattern::gpt2, {}, false, "byte"};
}

std::vector<NamedText> tokenizer_files(const Tokenizer& tokenizer, int context) {
  if (tokenizer.sentencepiece() != nullptr) return {{model_name, std::string(tokenizer.sentencepiece()->model())}};
  std::string rules;
  if (tokenizer.kind() == TokenizerKind::characters)
    rules = character_rules(tokenizer);
  else
    rules = write_tokenizer_json(tokenizer.byte_pairs() != nullptr ? *tokenizer.byte_pairs() : byte_rules());
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"model_max_length", context},
                 {"clean_up_tokenization_spaces", false}};
  if (tokenizer.end_of_text() >= 0) {
    const std::string end = character(tokenizer, tokenizer.end_of_text());
    config["bos_token"] = config["eos_token"] = end;
  }
  return {{json_name, rules}, {"tokenizer_config.json", config.dump(2) + "\n"}};
}

Tokenizer read_tokenizer_folder(const fs::path& folder) {
  const auto read = [&](const char* name) { return read_text_file(folder / name, "tokenizer file"); };
  std::string refusal;
  const std::string where = (folder / json_name).string();
  if (const auto text = read(json_name)) {
    try {
      if (const auto characters = read_characters(*text, where)) return *characters;
      Tokenizer tokenizer = Tokenizer::of_byte_pairs(read_tokenizer_json(*text, where));
      return *tokenizer.byte_pairs() == byte_rules() ? Tokenizer::of_bytes() : tokenizer;
    } catch (const ReadError&) {
      throw;
    } catch (const DataError& error) {
      refusal = error.what();
    }
  }
  if (const auto model = read(model_name)) {
    if (!refusal.empty()) log_info("{}; {} serves", refusal, model_name);
    return Tokenizer::of_sentencepiece(*model, (folder / model_name).string());
  }
  if (!refusal.empty()) throw DataError("{}", refusal);
  const auto vocabulary = read("vocab.json"), merges = read("merges.txt");
  if (vocabulary && merges)
    return Tokenizer::of_byte_pairs(
        read_merges(*merges, (folder / "merges.txt").string(), *vocabulary, (folder / "vocab.json").string()));
  throw DataError(
      "{}: has no tokenizer: no {}, no vocab.json with merges.txt, no {}; copy or download the folder again",
      folder.string(), json_name, model_name);
}

}  // namespace dekoder
