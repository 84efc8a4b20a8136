// SPDX-License-Identifier: Apache-2.0
#include "data/prepare_tokens.hpp"

#include <array>
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/input_file.hpp"
#include "io/files/sha256.hpp"
#include "io/hdf5/hdf5_file.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t buffer_bytes = std::size_t{1} << 20;
constexpr std::size_t code_points_in_unicode = 0x110000;

/// A text file read in pieces; hashes and counts what it hands out.
class TextReader {
 public:
  explicit TextReader(const fs::path& path) : file_(path, "text file"), buffer_(buffer_bytes, '\0') {}

  /// The next piece, empty at the end of the file. The last `keep` bytes of the piece before come first again.
  std::string_view next(std::size_t keep) {
    std::memmove(buffer_.data(), buffer_.data() + filled_ - keep, keep);
    const std::size_t fresh = file_.read(std::span(buffer_).subspan(keep));
    hash_.update(std::as_bytes(std::span(buffer_).subspan(keep, fresh)));
    bytes_ += fresh;
    filled_ = keep + fresh;
    at_end_ = fresh == 0;
    return std::string_view(buffer_).substr(0, filled_);
  }
  bool at_end() const { return at_end_; }
  std::uint64_t bytes() const { return bytes_; }
  std::string finish_hash() { return hash_.finish(); }

 private:
  InputFile file_;
  std::string buffer_;
  std::size_t filled_ = 0;
  bool at_end_ = false;
  std::uint64_t bytes_ = 0;
  Sha256 hash_;
};

/// Calls visit(code point) for every character of the text. Throws DataError at the first byte that is no UTF-8.
template <class Visit>
void for_each_character(TextReader& reader, const fs::path& path, Visit&& visit) {
  std::size_t keep = 0;
  std::uint64_t line = 1, column = 1;
  for (;;) {
    const std::string_view piece = reader.next(keep);
    const std::uint64_t piece_begin = reader.bytes() - piece.size();
    std::size_t at = 0;
    while (at < piece.size()) {
      const Utf8Front front = utf8_front(piece.substr(at));
      if (front.kind == Utf8Front::Kind::incomplete && !reader.at_end()) break;
      if (front.kind != Utf8Front::Kind::character)
        throw DataError(
            "{}: {} (line {}, column {}), which the char tokenizer needs; convert the text (iconv -t UTF-8) or use "
            "the byte tokenizer",
            path.string(), Utf8Fault{piece_begin + at, line, column, static_cast<unsigned char>(piece[at])}.text(),
            line, column);
      visit(front.code_point);
      ++column;
      if (front.code_point == U'\n') ++line, column = 1;
      at += front.bytes;
    }
    keep = piece.size() - at;
    if (reader.at_end()) return;
  }
}

/// Calls visit(byte) for every byte of the text.
template <class Visit>
void for_each_byte(TextReader& reader, Visit&& visit) {
  for (std::string_view piece = reader.next(0); !piece.empty(); piece = reader.next(0))
    for (const char byte : piece) visit(static_cast<unsigned char>(byte));
}

/// First reading: checks the text, counts it, hashes it and collects the vocabulary.
TokenFileHeader survey(const fs::path& text, TokenizerKind kind, double validation_fraction) {
  TextReader reader(text);
  TokenFileHeader header;
  if (kind == TokenizerKind::bytes) {
    while (!reader.next(0).empty()) {
    }
    header.tokens = reader.bytes();
  } else {
    std::vector<bool> seen(code_points_in_unicode);
    for_each_character(reader, text, [&](char32_t code_point) {
      seen[code_point] = true;
      ++header.tokens;
    });
    std::vector<char32_t> code_points;
    for (std::size_t c = 0; c < seen.size(); ++c)
      if (seen[c]) code_points.push_back(static_cast<char32_t>(c));
    if (!code_points.empty()) header.tokenizer = Tokenizer::of_characters(std::move(code_points));
  }
  if (header.tokens == 0) throw DataError("{}: is empty, expected text", text.string());
  header.source = text.filename().string();
  header.source_bytes = reader.bytes();
  header.source_sha256 = reader.finish_hash();
  const auto held_out =
      static_cast<std::uint64_t>(std::llround(validation_fraction * static_cast<double>(header.tokens)));
  header.training_tokens = header.tokens - std::min(held_out, header.tokens);
  if (header.training_tokens < 2)
    throw DataError(
        "{}: its {} tokens leave {} to train on after {:g} of them are held out, expected at least 2; use a "
        "longer text or a smaller validation fraction",
        text.string(), header.tokens, header.training_tokens, validation_fraction);
  const std::size_t token_bytes = header.tokenizer.vocabulary() > 65536 ? 4 : 2;
  header.block_tokens = std::min<std::uint64_t>(token_file::block_bytes / token_bytes, header.tokens);
  return header;
}

/// Writes tokens block by block with their digests.
template <class Stored>
class BlockWriter {
 public:
  BlockWriter(Hdf5File& file, const TokenFileHeader& header) : file_(file), header_(header) {
    const std::array<std::size_t, 1> shape = {header.tokens}, chunk = {header.block_tokens};
    tokens_.emplace(
        file.create_dataset("/tokens", hdf5_type_of<Stored>(), shape, {{chunk.begin(), chunk.end()}, true}));
    block_.reserve(header.block_tokens);
  }

  /// Tokens beyond those the header announces are counted but not kept: the text has grown.
  void push(Token token) {
    if (written_ + block_.size() >= header_.tokens) {
      ++surplus_;
      return;
    }
    if (written_ + block_.size() >= header_.training_tokens) validation_bytes_ += header_.tokenizer.bytes_of(token);
    block_.push_back(static_cast<Stored>(token));
    if (block_.size() == header_.block_tokens) flush();
  }
  /// Writes what is left; returns the number of tokens pushed in all.
  std::uint64_t finish() {
    if (!block_.empty()) flush();
    file_.write<std::uint64_t>("/block_digests", std::span<const std::uint64_t>(digests_));
    tokens_->close();
    tokens_.reset();
    return written_ + surplus_;
  }
  std::uint64_t validation_bytes() const { return validation_bytes_; }

 private:
  void flush() {
    const std::array<std::size_t, 1> offset = {written_}, count = {block_.size()};
    tokens_->write(std::span<const Stored>(block_), offset, count);
    digests_.push_back(token_file::block_digest<Stored>(digests_.size(), block_));
    written_ += block_.size();
    block_.clear();
  }

  Hdf5File& file_;
  const TokenFileHeader& header_;
  std::optional<Hdf5Dataset> tokens_;
  std::vector<Stored> block_;
  std::vector<std::uint64_t> digests_;
  std::uint64_t written_ = 0, surplus_ = 0, validation_bytes_ = 0;
};

/// Second reading: encodes. Sets header.validation_bytes.
template <class Stored>
void encode_text(const fs::path& text, Hdf5File& file, TokenFileHeader& header) {
  TextReader reader(text);
  BlockWriter<Stored> writer(file, header);
  bool known = true;
  if (header.tokenizer.kind() == TokenizerKind::bytes) {
    for_each_byte(reader, [&](unsigned char byte) { writer.push(byte); });
  } else {
    for_each_character(reader, text, [&](char32_t code_point) {
      const Token token = header.tokenizer.find(code_point);
      known = known && token >= 0;
      writer.push(std::max(token, 0));
    });
  }
  const std::uint64_t tokens = writer.finish();
  if (!known || tokens != header.tokens || reader.finish_hash() != header.source_sha256)
    throw DataError("{}: changed while it was read; prepare it again", text.string());
  header.validation_bytes = writer.validation_bytes();
}

void write_header(Hdf5File& file, const TokenFileHeader& header) {
  file.write_attribute("/", "format", token_file::format);
  file.write_attribute("/", "major", token_file::major_version);
  file.write_attribute("/", "minor", token_file::minor_version);
  file.write_text("tokenizer", header.tokenizer.to_text());
  file.write_attribute("/", "source", header.source);
  file.write_attribute("/", "source_sha256", header.source_sha256);
  file.write_attribute("/", "source_bytes", header.source_bytes);
  file.write_attribute("/", "tokens", header.tokens);
  file.write_attribute("/", "training_tokens", header.training_tokens);
  file.write_attribute("/", "validation_bytes", header.validation_bytes);
  file.write_attribute("/", "block_tokens", header.block_tokens);
}

/// Whether the tokens of a file can be read as they were written.
bool is_whole(const fs::path& output) {
  try {
    token_file::verify(output);
    return true;
  } catch (const ReadError&) {
    throw;
  } catch (const DataError& error) {
    log_warning("{}; it is made anew", error.what());
    return false;
  }
}

/// Whether `output` is there already with this content, whole and in the present format; throws where it is
/// something else than a token file.
bool already_prepared(const fs::path& output, TokenFileHeader& header) {
  std::error_code ignored;
  if (!fs::exists(output, ignored)) return false;
  try {
    const TokenFileHeader there = token_file::read_header(output);
    if (there.source_sha256 != header.source_sha256 || there.training_tokens != header.training_tokens ||
        !(there.tokenizer == header.tokenizer) || !is_whole(output))
      return false;
    header = there;
    return true;
  } catch (const token_file::OlderFormatError&) {
    return false;
  } catch (const ReadError&) {
    throw;  // it may be as good as ever
  } catch (const DataError& error) {
    throw DataError("{}: is there already and is no usable token file ({}); remove it or name another output",
                    output.string(), error.what());
  }
}

}  // namespace

PrepareReport prepare_tokens(const fs::path& text, const fs::path& output, TokenizerKind kind,
                             double validation_fraction) {
  if (!(validation_fraction >= 0 && validation_fraction < 1))
    throw ConfigError("validation fraction: got {}, expected 0 or more and below 1", validation_fraction);
  output_target(output);  // before the text is read: it may take long
  PrepareReport report;
  report.header = survey(text, kind, validation_fraction);
  if (already_prepared(output, report.header)) {
    report.unchanged = true;
    return report;
  }
  PendingFile pending(output, "tokens");
  Hdf5File file = Hdf5File::create(pending);
  if (report.header.tokenizer.vocabulary() > 65536)
    encode_text<std::uint32_t>(text, file, report.header);
  else
    encode_text<std::uint16_t>(text, file, report.header);
  write_header(file, report.header);
  file.close();
  pending.commit(token_file::verify);
  return report;
}

}  // namespace dekoder
