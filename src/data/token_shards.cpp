// SPDX-License-Identifier: Apache-2.0
#include "data/token_shards.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cstring>
#include <map>
#include <numeric>
#include <set>

#include "base/decimal.hpp"
#include "base/error.hpp"
#include "data/corpus.hpp"
#include "data/reading_progress.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/file_kind.hpp"
#include "io/files/input_file.hpp"
#include "io/files/packed_file.hpp"

namespace dekoder {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "shards are read and written as they lie in memory");

namespace {

bool is_held_out(const fs::path& path) {
  std::string name = path.filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  const std::size_t held_out = name.rfind("val"), training = name.rfind("train");
  return held_out != std::string::npos && (training == std::string::npos || held_out > training);
}

std::int32_t header_number(std::string_view head, std::size_t index) {
  std::int32_t number;
  std::memcpy(&number, head.data() + index * sizeof(number), sizeof(number));
  return number;
}

/// A header of llm.c whose magic, a date, is that of another kind of file. Tokens of nanoGPT are none: at least one
/// in the second half of the first 1024 bytes is not 0.
bool is_foreign_header(std::string_view head, std::int32_t magic) {
  return head.size() == ShardFormat::llm_c_header_bytes && magic >= 20240101 && magic <= 20251231 &&
         head.find_first_not_of('\0', head.size() / 2) == std::string_view::npos;
}

/// Fills `out` unless the end comes first; returns the bytes.
std::size_t fill(InputFile& file, std::span<char> out) {
  std::size_t bytes = 0;
  for (std::size_t got = 1; got > 0 && bytes < out.size(); bytes += got) got = file.read(out.subspan(bytes));
  return bytes;
}

TokenShard open_shard(const fs::path& path) {
  InputFile file(path, "token shard");
  std::array<char, ShardFormat::llm_c_header_bytes> head;
  const FileState state = file.state();
  const std::size_t got = fill(file, head);
  file.require_state(state);
  TokenShard shard = read_shard({head.data(), got}, state.bytes, path);
  shard.state = state;
  return shard;
}

template <class Stored>
void read_tokens(const TokenShard& shard, int vocabulary, const std::function<void(std::span<const Token>)>& take) {
  const InputFile file(shard.path, "token shard");
  file.require_state(shard.state);
  std::uint64_t offset = shard.format->header_bytes();
  constexpr std::uint64_t piece = 65536;
  std::vector<Stored> stored;
  std::vector<Token> tokens;
  for (std::uint64_t done = 0; done < shard.tokens; done += stored.size()) {
    stored.resize(std::min(piece, shard.tokens - done));
    const std::span<char> bytes(reinterpret_cast<char*>(stored.data()), stored.size() * sizeof(Stored));
    file.read_at(offset, bytes);
    const auto outside = std::find_if(stored.begin(), stored.end(), [&](std::uint32_t token) {
      return token >= static_cast<std::uint32_t>(vocabulary);
    });
    if (outside != stored.end()) {
      file.require_state(shard.state);
      const auto index = static_cast<std::uint64_t>(outside - stored.begin());
      throw DataError(
          "{}: token {}, at offset {}, is {}; expected 0 to {}, the vocabulary: give the tokenizer that the shard "
          "was made with, or leave the file out if it holds no tokens",
          shard.path.string(), done + index, offset + index * sizeof(Stored), *outside, vocabulary - 1);
    }
    offset += bytes.size();
    if (done + stored.size() == shard.tokens) file.require_state(shard.state);
    tokens.assign(stored.begin(), stored.end());
    take(tokens);
  }
}

}  // namespace

std::string ShardFormat::header(std::uint32_t tokens) const {
  std::string text(header_bytes(), '\0');
  const std::array<std::uint32_t, 3> numbers = {static_cast<std::uint32_t>(magic),
                                                static_cast<std::uint32_t>(version), tokens};
  if (!text.empty()) std::memcpy(text.data(), numbers.data(), sizeof(numbers));
  return text;
}

TokenShard read_shard(std::string_view head, std::uint64_t bytes, const fs::path& path) {
  const std::string name = path.string();
  if (bytes == 0) throw DataError("{}: is empty, expected tokens; leave it out, or copy it again", name);
  const std::int32_t magic = head.size() >= 4 ? header_number(head, 0) : 0;
  const ShardFormat* format = &nanogpt;
  for (const ShardFormat* known : {&llm_c_gpt2, &llm_c_llama3})
    if (magic == known->magic) format = known;
  const std::size_t header_bytes = format->header_bytes();
  if (is_foreign_header(head, magic) && format == &nanogpt)
    throw DataError(
        "{}: its magic, at offset 0, is {}; expected {} or {}, of token shards of llm.c: it is another file of "
        "that; leave it out",
        name, magic, llm_c_gpt2.magic, llm_c_llama3.magic);
  if (head.size() < header_bytes)
    throw DataError("{}: ends at offset {}, in its header; expected {} bytes of that ({}): copy or make it again",
                    name, head.size(), header_bytes, format->name);
  std::uint64_t tokens = bytes / format->token_bytes;
  if (header_bytes > 0) {
    const std::int32_t version = header_number(head, 1), count = header_number(head, 2);
    if (version != format->version)
      throw DataError("{}: its version, at offset 4, is {}; expected {} ({}): make it again with a present llm.c",
                      name, version, format->version, format->name);
    tokens = static_cast<std::uint64_t>(std::max(count, 0));
    if (count < 1 || bytes != header_bytes + tokens * format->token_bytes)
      throw DataError(
          "{}: its header, at offset 8, counts {} tokens, and the file has {} bytes; expected at least one token "
          "and {} bytes of header and {} per token ({}): copy or make it again",
          name, count, bytes, header_bytes, format->token_bytes, format->name);
  } else if (bytes % format->token_bytes != 0) {
    throw DataError(
        "{}: has {} bytes; expected an even number, tokens of 2 bytes ({}), or the magic {} or {} of llm.c at "
        "offset 0, where {} stands: copy or make it again, or leave it out if it holds no tokens",
        name, bytes, format->name, llm_c_gpt2.magic, llm_c_llama3.magic, magic);
  }
  return {path, format, tokens, is_held_out(path)};
}

namespace {

/// Shards of one folder and name, by their numbers: those of both parts go on from each other, or each has its own.
struct NumberedSet {
  std::set<std::uint32_t> held_out, training;
};

/// Throws where the numbers have gaps or do not begin with 0 or 1 (the training part alone).
void require_no_gaps(const std::string& name, const std::set<std::uint32_t>& numbers) {
  std::uint32_t expected = 0;
  for (const std::uint32_t number : numbers) {
    if (number == 1 && expected == 0) ++expected;
    if (number != expected)
      throw DataError(
          "{}: shard {:06} is there and {:06} is not: a part of the set is missing; copy or export all of it, or "
          "name "
          "the files themselves, not their folder",
          name, number, expected);
    ++expected;
  }
}

/// Throws where the shards of a folder, in the folders that hold them, are no whole sets, as far as it can be told.
void require_whole_sets(const std::vector<fs::path>& shards) {
  std::map<std::string, NumberedSet> sets;
  std::set<fs::path> folders;
  for (const fs::path& shard : shards) {
    folders.insert(shard.parent_path());
    const std::string stem = shard.stem().string();  // NAME_train_000001
    const std::size_t border = stem.rfind('_');
    std::uint32_t number = 0;
    if (border == std::string::npos || stem.size() - border != 7 ||
        read_decimal(std::string_view(stem).substr(border + 1), number) != Decimal::read)
      continue;
    const std::string_view front = std::string_view(stem).substr(0, border);
    for (const std::string_view part : {"_val", "_train"})
      if (front.ends_with(part)) {
        const std::string name = (shard.parent_path() / front.substr(0, front.size() - part.size())).string();
        (part == "_val" ? sets[name].held_out : sets[name].training).insert(number);
      }
  }
  for (auto& [name, set] : sets) {
    std::set<std::uint32_t> all = set.training;
    all.insert(set.held_out.begin(), set.held_out.end());
    if (all.size() == set.training.size() + set.held_out.size()) {
      require_no_gaps(name, all);
    } else {
      require_no_gaps(name, set.training);
      require_no_gaps(name, set.held_out);
    }
  }
  for (const fs::path& folder : folders) {
    std::error_code failure;
    for (const fs::path& entry : folder_entries(folder, failure))
      if (is_unfinished_file(entry, "shard"))
        throw DataError(
            "{}: is of an export that was killed or is still at work: shards may be missing; run `dekoder tokens "
            "FILE "
            "--shards {}` again, or remove it if the others are all",
            entry.string(), folder.string());
  }
}

}  // namespace

std::optional<TokenShards> TokenShards::of_words(const std::vector<std::string>& words) {
  std::vector<fs::path> files;
  fs::path text;
  const auto sort_in = [&](const fs::path& file) {
    if (const FileKind kind = file_kind(file); kind.is_shard() && kind.packing != Packing::none)
      throw DataError(
          "{}: is a packed token shard, as its name says, and shards are read as they are; unpack it with {}, or "
          "rename it if it is a text",
          file.string(), kind.packing == Packing::gzip ? "gzip -d" : "zstd -d");
    else if (kind.is_shard())
      files.push_back(file);
    else if (text.empty())
      text = file;
  };
  for (const std::string& word : words) {
    std::error_code ignored;
    if (word == PackedFile::standard_input || !fs::is_directory(word, ignored)) {
      sort_in(word);
      continue;
    }
    const std::size_t before = files.size();
    for (const fs::path& file : files_below(word))
      if (file_kind(file).contents != Contents::unknown) sort_in(file);
    require_whole_sets({files.begin() + static_cast<std::ptrdiff_t>(before), files.end()});
  }
  if (files.empty()) return std::nullopt;
  if (!text.empty())
    throw ConfigError(
        "{} is a text and {} holds tokens, as its ending says; expected texts or token shards (*.bin) alone: name "
        "the files, or a folder that holds one kind",
        input_name(text), files[0].string());
  TokenShards all;
  for (const fs::path& file : files) all.shards_.push_back(open_shard(file));
  std::stable_sort(all.shards_.begin(), all.shards_.end(),
                   [](const TokenShard& a, const TokenShard& b) { return a.held_out < b.held_out; });
  return all;
}

namespace {

std::uint64_t tokens_of(std::span<const TokenShard> shards, bool also_held_out) {
  return std::accumulate(
      shards.begin(), shards.end(), std::uint64_t{0},
      [&](std::uint64_t sum, const TokenShard& s) { return sum + (also_held_out || !s.held_out ? s.tokens : 0); });
}

}  // namespace

std::uint64_t TokenShards::tokens() const {
  return tokens_of(shards_, true);
}

std::uint64_t TokenShards::training_tokens() const {
  return tokens_of(shards_, false);
}

void TokenShards::read(int vocabulary, const char* work,
                       const std::function<void(std::span<const Token>)>& take) const {
  std::uint64_t bytes = 0, done = 0;
  for (const TokenShard& shard : shards_) bytes += shard.tokens * shard.format->token_bytes;
  ReadingProgress progress(work, bytes);
  for (const TokenShard& shard : shards_) {
    const auto take_and_show = [&](std::span<const Token> tokens) {
      take(tokens);
      progress.show(done += tokens.size() * shard.format->token_bytes);
    };
    shard.format->token_bytes == 2 ? read_tokens<std::uint16_t>(shard, vocabulary, take_and_show)
                                   : read_tokens<std::uint32_t>(shard, vocabulary, take_and_show);
  }
}

std::string TokenShards::name() const {
  return name_of_sources(shards_[0].path.filename().string(), shards_.size());
}

std::string TokenShards::place() const {
  return name_of_sources(shards_[0].path.string(), shards_.size());
}

}  // namespace dekoder
