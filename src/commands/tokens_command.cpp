// SPDX-License-Identifier: Apache-2.0
#include "commands/tokens_command.hpp"

#include <algorithm>
#include <vector>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "commands/command_files.hpp"
#include "data/export_shards.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/input_file.hpp"
#include "tokenizer/tokenizer_json.hpp"

namespace dekoder {

namespace {

/// A row for each power of two between the shortest document and the longest.
std::string histogram_text(const token_file::DocumentLengths& lengths) {
  const auto& counts = lengths.of_bits;
  const auto is_some = [](std::uint64_t count) { return count > 0; };
  const auto first = std::find_if(counts.begin(), counts.end(), is_some);
  const auto last = std::find_if(counts.rbegin(), counts.rend(), is_some).base();
  const std::uint64_t most = *std::max_element(counts.begin(), counts.end());
  std::string text = fmt::format("tokens per document, {} to {}:\n", lengths.least, lengths.most);
  for (auto count = first; count != last; ++count) {
    const std::uint64_t low = std::uint64_t{1} << (count - counts.begin());
    constexpr double widest = 40;
    const auto marks = std::size_t(widest * double(*count) / double(most));
    const std::string bar(is_some(*count) ? std::max<std::size_t>(marks, 1) : 0, '#');
    text += fmt::format("{:>12} to {:>12}  {:>12}{}{}\n", low, 2 * low - 1, *count, bar.empty() ? "" : "  ", bar);
  }
  return text;
}

/// Exports the tokens, and says what is there then.
std::string write_shards(const TokenDataset& data, const Command& command) {
  ShardExport wish;
  wish.folder = command.shards;
  wish.as_nanogpt = command.shard_format == "nanogpt";
  if (command.shard_tokens > 0) wish.shard_tokens = static_cast<std::uint64_t>(command.shard_tokens);
  const ExportedShards shards = export_shards(data, wish);
  const std::size_t count = shards.files.size();
  std::string text = fmt::format("{}: {} shard{} ({}, {} bytes a token), ", command.shards, count,
                                 count == 1 ? "" : "s", shards.format->name, shards.format->token_bytes);
  text += shards.files[0].filename().string();
  if (count > 1) text += " to " + shards.files.back().filename().string();
  if (shards.unchanged > 0) text += fmt::format("; unchanged: {}", shards.unchanged);
  return text + "\n";
}

/// A token's text in quotes; the number of a character behind it that has no form of its own.
std::string listed(const std::string& text) {
  const std::string quoted = fmt::format("'{}'", excerpt(text));
  if (text.empty() || static_cast<unsigned char>(text[0]) < 0x80) return quoted;
  const Utf8Front front = utf8_front(text);
  if (front.kind != Utf8Front::Kind::character || front.bytes != text.size()) return quoted;
  const std::string name = character_name(front.code_point);
  return name.starts_with("U+") ? fmt::format("{} ({})", quoted, name) : quoted;
}

}  // namespace

std::string token_file_text(const std::filesystem::path& file, const TokenFileHeader& header) {
  std::string text =
      fmt::format("{} tokens of {} ({} tokenizer, vocabulary {}), {} for training, {} held out\n", header.tokens,
                  excerpt(header.source, 300), tokenizer_kind_name(header.tokenizer.kind()),
                  header.tokenizer.vocabulary(), header.training_tokens, header.validation_tokens());
  if (header.unknown_tokens > 0)
    text += fmt::format(
        "{} tokens stand for what the model does not know, which is lost; a model with byte fallback keeps it\n",
        header.unknown_tokens);
  if (header.documents == 0) return text;
  text += fmt::format("{} bytes, {:.2f} per token; {} document{}", header.source_bytes,
                      double(header.source_bytes) / double(header.tokens), header.documents,
                      header.documents == 1 ? "" : "s");
  if (header.split_by_document) text += fmt::format(", {} of them held out", header.validation_documents);
  if (header.empty_documents > 0) text += fmt::format("; empty ones left out: {}", header.empty_documents);
  return text + "\n" + histogram_text(token_file::document_lengths(file, header));
}

std::string show_tokens(const Command& command) {
  const TokenDataset data(command.tokens_file, 0);
  std::string text = command.tokens_file + ": " + token_file_text(command.tokens_file, data.header());
  std::vector<Token> tokens(std::min<std::uint64_t>(std::uint64_t(command.show), data.header().tokens));
  data.read(0, tokens);
  for (const Token token : tokens)
    text += fmt::format("{:>8}  {}\n", token, listed(data.tokenizer().listed(token)));
  if (!command.shards.empty()) text += write_shards(data, command);
  if (command.output.empty()) return text;
  const Tokenizer& tokenizer = data.tokenizer();
  if (tokenizer.byte_pairs() == nullptr && tokenizer.sentencepiece() == nullptr)
    throw ConfigError("--output {}: the {} tokenizer of {} has no file of its own, as bpe and sentencepiece have",
                      command.output, tokenizer_kind_name(tokenizer.kind()), command.tokens_file);
  check_output(command.output, [&](const std::filesystem::path& there) {  // an earlier output of this command
    const std::string name = there.string(), bytes = read_text_file(there, "tokenizer file").value_or("");
    tokenizer.byte_pairs() != nullptr ? (void)read_tokenizer_json(bytes, name)
                                      : (void)Tokenizer::of_sentencepiece(bytes, name);
  });
  write_file_whole(command.output,
                   tokenizer.byte_pairs() != nullptr ? tokenizer.to_text() : tokenizer.sentencepiece()->model());
  return text;
}

}  // namespace dekoder
