// SPDX-License-Identifier: Apache-2.0
#include "data/token_dataset.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "io/hdf5/hdf5_file.hpp"

namespace dekoder {

namespace {

constexpr const char* remedy = "make it with `dekoder prepare`";

std::uint64_t blocks_of(const TokenFileHeader& header) {
  return header.tokens / header.block_tokens + (header.tokens % header.block_tokens != 0 ? 1 : 0);
}

Hdf5File open_token_file(const std::filesystem::path& path) {
  try {
    return Hdf5File::open(path);
  } catch (const ReadError&) {
    throw;
  } catch (const DataError& error) {
    throw DataError("{}; expected a token file: {}", error.what(), remedy);
  }
}

void require_format(const Hdf5File& file) {
  const std::string name = file.path().string();
  if (!file.has_attribute("/", "format") || file.text_attribute("/", "format") != token_file::format)
    throw DataError("{}: is no token file (root attribute format, expected {}); {}", name, token_file::format,
                    remedy);
  const int major = file.attribute<int>("/", "major");
  if (major < token_file::major_version)
    throw token_file::OlderFormatError(
        "{}: token file of format {}, this program reads {}; run `dekoder prepare` again, with the same output",
        name, major, token_file::major_version);
  if (major > token_file::major_version)
    throw DataError("{}: token file of format {}, this program reads {}; prepare the text again", name, major,
                    token_file::major_version);
}

/// The bytes that the header counts must be those that so many tokens can have.
void require_bytes(const TokenFileHeader& header, const std::string& name) {
  const std::string& digest = header.source_sha256;
  if (digest.size() != 64 || digest.find_first_not_of("0123456789abcdef") != std::string::npos)
    throw DataError("{}: source_sha256 is '{}', expected 64 hexadecimal digits; {}", name, excerpt(digest), remedy);
  if (header.validation_bytes > header.source_bytes)
    throw DataError("{}: validation_bytes is {}, above the {} bytes of the source; {}", name,
                    header.validation_bytes, header.source_bytes, remedy);
  const Tokenizer& tokenizer = header.tokenizer;
  std::uint64_t longest = 1;
  for (Token token = 0; token < tokenizer.vocabulary(); ++token)
    longest = std::max<std::uint64_t>(longest, tokenizer.bytes_of(token));
  const bool has_only_text =
      tokenizer.kind() == TokenizerKind::bytes || tokenizer.kind() == TokenizerKind::characters;
  const auto require = [&](const char* what, std::uint64_t bytes, std::uint64_t tokens) {
    const std::uint64_t least = has_only_text ? tokens : 0;
    if (bytes < least || bytes / longest + (bytes % longest != 0 ? 1 : 0) > tokens)
      throw DataError("{}: {} is {}, of {} tokens that have {} to {} bytes each; {}", name, what, bytes, tokens,
                      has_only_text ? 1 : 0, longest, remedy);
  };
  if (tokenizer.keeps_bytes()) {
    require("source_bytes", header.source_bytes, header.tokens);
    require("validation_bytes", header.validation_bytes, header.validation_tokens());
  }
  require("validation_token_bytes", header.validation_token_bytes,
          tokenizer.keeps_bytes() ? 0 : header.validation_tokens());
  if (header.unknown_tokens > (tokenizer.unknown() < 0 ? 0 : header.tokens))
    throw DataError("{}: unknown_tokens is {}, expected at most {}; {}", name, header.unknown_tokens,
                    tokenizer.unknown() < 0 ? 0 : header.tokens, remedy);
}

/// What the header says of documents must agree with itself; their ends are for lengths_of to check.
void require_documents(const Hdf5File& file, const TokenFileHeader& header) {
  const std::string name = file.path().string();
  const bool tells = file.has_attribute("/", "documents");
  if (tells != file.exists("/document_ends"))
    throw DataError("{}: has {}, expected both or none; {}", name,
                    tells ? "documents, but no /document_ends" : "/document_ends, but no documents", remedy);
  if (!tells) return;
  if (header.documents == 0 || header.documents > header.tokens)
    throw DataError("{}: documents is {}, expected 1 to {}, the tokens of the file; {}", name, header.documents,
                    header.tokens, remedy);
  const Hdf5Dataset ends = file.dataset("/document_ends");
  if (ends.type() != Hdf5Type::uint64 || ends.shape() != std::vector<std::size_t>{header.documents})
    throw DataError("{}:/document_ends: {} values of {}, expected uint64, {} of them; {}", name, ends.size(),
                    hdf5_type_name(ends.type()), header.documents, remedy);
  if (header.validation_documents > (header.split_by_document ? header.documents - 1 : 0))
    throw DataError("{}: validation_documents is {}, expected at most {} of {}, split by {}; {}", name,
                    header.validation_documents, header.split_by_document ? header.documents - 1 : 0,
                    header.documents, header.split_by_document ? "document" : "place", remedy);
  if (header.split_by_document && (header.validation_documents == 0) != (header.validation_tokens() == 0))
    throw DataError("{}: validation_documents is {}, and {} tokens are held out; {}", name,
                    header.validation_documents, header.validation_tokens(), remedy);
  if (!(header.validation_fraction >= 0 && header.validation_fraction < 1))
    throw DataError("{}: validation_fraction is {}, expected 0 or more and below 1; {}", name,
                    header.validation_fraction, remedy);
}

/// The numbers of the header must agree with each other and with the datasets' shapes.
void require_consistent(const Hdf5File& file, const TokenFileHeader& header) {
  const std::string name = file.path().string();
  const Hdf5Dataset tokens = file.dataset("/tokens"), digests = file.dataset("/block_digests");
  if (tokens.type() != Hdf5Type::uint16 && tokens.type() != Hdf5Type::uint32)
    throw DataError("{}:/tokens: holds {}, expected uint16 or uint32; {}", name, hdf5_type_name(tokens.type()),
                    remedy);
  if (tokens.shape() != std::vector<std::size_t>{header.tokens})
    throw DataError("{}:/tokens: {} values on {} axes, expected {} tokens on one axis; {}", name, tokens.size(),
                    tokens.shape().size(), header.tokens, remedy);
  if (header.block_tokens == 0 || header.block_tokens > (1u << 24))
    throw DataError("{}: block_tokens is {}, expected 1 to {}; {}", name, header.block_tokens, 1u << 24, remedy);
  if (digests.shape() != std::vector<std::size_t>{blocks_of(header)})
    throw DataError("{}:/block_digests: {} values, expected {}; {}", name, digests.size(), blocks_of(header),
                    remedy);
  if (header.training_tokens == 0 || header.training_tokens > header.tokens)
    throw DataError("{}: training_tokens is {}, expected 1 to {}, the tokens of the file; {}", name,
                    header.training_tokens, header.tokens, remedy);
  require_bytes(header, name);
  require_documents(file, header);
}

bool is_split_by_document(const Hdf5File& file) {
  const std::string split = file.text_attribute("/", "split");
  if (split != "document" && split != "place")
    throw DataError("{}: split is '{}', expected document or place; {}", file.path().string(), excerpt(split),
                    remedy);
  return split == "document";
}

TokenFileHeader header_of(const Hdf5File& file) {
  require_format(file);
  TokenFileHeader header;
  header.tokenizer = Tokenizer::from_text(file.text("tokenizer"), file.path().string());
  header.source = file.text_attribute("/", "source");
  header.source_sha256 = file.text_attribute("/", "source_sha256");
  header.source_bytes = file.attribute<std::uint64_t>("/", "source_bytes");
  header.tokens = file.attribute<std::uint64_t>("/", "tokens");
  header.training_tokens = file.attribute<std::uint64_t>("/", "training_tokens");
  header.validation_bytes = file.attribute<std::uint64_t>("/", "validation_bytes");
  header.block_tokens = file.attribute<std::uint64_t>("/", "block_tokens");
  if (file.has_attribute("/", "documents")) {
    header.documents = file.attribute<std::uint64_t>("/", "documents");
    header.validation_documents = file.attribute<std::uint64_t>("/", "validation_documents");
    header.empty_documents = file.attribute<std::uint64_t>("/", "empty_documents");
    header.split_by_document = is_split_by_document(file);
    header.validation_fraction = file.attribute<double>("/", "validation_fraction");
  }
  if (file.has_attribute("/", "validation_token_bytes")) {
    header.validation_token_bytes = file.attribute<std::uint64_t>("/", "validation_token_bytes");
    header.unknown_tokens = file.attribute<std::uint64_t>("/", "unknown_tokens");
  }
  require_consistent(file, header);
  return header;
}

/// Reads the ends of the documents, and checks them.
token_file::DocumentLengths lengths_of(const Hdf5File& file, const TokenFileHeader& header) {
  token_file::DocumentLengths lengths;
  if (header.documents == 0) return lengths;
  const Hdf5Dataset dataset = file.dataset("/document_ends");
  std::vector<std::uint64_t> ends;
  std::uint64_t last = 0;
  const std::uint64_t training = header.documents - header.validation_documents;
  for (std::uint64_t first = 0; first < header.documents; first += ends.size()) {
    ends.resize(std::min<std::uint64_t>(token_file::document_ends_chunk, header.documents - first));
    const std::array<std::size_t, 1> offset = {first}, count = {ends.size()};
    dataset.read(std::span<std::uint64_t>(ends), offset, count);
    for (std::size_t i = 0; i < ends.size(); ++i) {
      const bool wrong_border =
          header.split_by_document && first + i + 1 == training && ends[i] != header.training_tokens;
      if (ends[i] <= last || ends[i] > header.tokens || wrong_border)
        throw DataError("{}:/document_ends: document {} ends at {}, behind {}, where {} tokens are to train on; {}",
                        file.path().string(), first + i, ends[i], last, header.training_tokens, remedy);
      const std::uint64_t length = ends[i] - last;
      lengths.least = last == 0 ? length : std::min(lengths.least, length);
      lengths.most = std::max(lengths.most, length);
      ++lengths.of_bits[static_cast<std::size_t>(std::bit_width(length)) - 1];
      last = ends[i];
    }
  }
  if (last != header.tokens)
    throw DataError("{}:/document_ends: the last document ends at {}, expected {}, as many as there are tokens; {}",
                    file.path().string(), last, header.tokens, remedy);
  return lengths;
}

}  // namespace

TokenFileHeader token_file::read_header(const std::filesystem::path& file) {
  return header_of(open_token_file(file));
}

/// The tokens themselves: all of them in memory, or the blocks used last.
class TokenDataset::Blocks {
 public:
  Blocks(Hdf5File file, const TokenFileHeader& header, std::size_t memory_limit)
      : file_(std::move(file)),
        tokens_(file_.dataset("/tokens")),
        digests_(file_.read<std::uint64_t>("/block_digests")),
        total_(header.tokens),
        block_tokens_(header.block_tokens),
        vocabulary_(header.tokenizer.vocabulary()),
        narrow_(tokens_.type() == Hdf5Type::uint16),
        streams_(total_ > memory_limit / (narrow_ ? 2 : 4)) {
    if (streams_) return;
    (narrow_ ? whole16_.resize(total_) : whole32_.resize(total_));
    for (std::uint64_t block = 0; block < digests_.size(); ++block)
      narrow_ ? load(block, std::span(whole16_).subspan(block * block_tokens_, tokens_in(block)))
              : load(block, std::span(whole32_).subspan(block * block_tokens_, tokens_in(block)));
  }

  bool streams() const { return streams_; }
  const Hdf5File& file() const { return file_; }
  std::uint64_t total() const { return total_; }

  void copy(std::uint64_t first, std::span<Token> out) {
    if (!streams_) {
      if (narrow_)
        std::copy_n(whole16_.begin() + static_cast<std::ptrdiff_t>(first), out.size(), out.begin());
      else
        std::copy_n(whole32_.begin() + static_cast<std::ptrdiff_t>(first), out.size(), out.begin());
      return;
    }
    const std::lock_guard lock(cache_mutex_);
    while (!out.empty()) {
      const std::uint64_t block = first / block_tokens_, inside = first % block_tokens_;
      const std::vector<Token>& tokens = cached(block);
      const std::size_t count = std::min<std::size_t>(out.size(), tokens.size() - inside);
      std::copy_n(tokens.begin() + static_cast<std::ptrdiff_t>(inside), count, out.begin());
      out = out.subspan(count);
      first += count;
    }
  }

 private:
  struct Cached {
    std::uint64_t block = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t last_use = 0;
    std::vector<Token> tokens;
  };

  std::size_t tokens_in(std::uint64_t block) const {
    return static_cast<std::size_t>(std::min(block_tokens_, total_ - block * block_tokens_));
  }

  /// Reads one block and checks its digest and that every token lies within the vocabulary.
  template <class Stored>
  void load(std::uint64_t block, std::span<Stored> tokens) const {
    const std::array<std::size_t, 1> offset = {block * block_tokens_}, count = {tokens.size()};
    tokens_.read(tokens, offset, count);
    const std::string where = fmt::format("{}:/tokens, block {} (tokens {} to {})", file_.path().string(), block,
                                          offset[0], offset[0] + count[0] - 1);
    if (token_file::block_digest<Stored>(block, tokens) != digests_[block])
      throw DataError("{}: damaged: its digest does not match; prepare the text again", where);
    for (std::size_t i = 0; i < tokens.size(); ++i)
      if (tokens[i] >= static_cast<std::uint32_t>(vocabulary_))
        throw DataError("{}: token {} is {}, outside of the vocabulary of {}; prepare the text again", where,
                        offset[0] + i, tokens[i], vocabulary_);
  }

  /// The block from the cache, read in place of the one used longest ago where it is not there.
  const std::vector<Token>& cached(std::uint64_t block) {
    auto entry = std::find_if(cache_.begin(), cache_.end(), [&](const Cached& c) { return c.block == block; });
    if (entry == cache_.end()) {
      entry = std::min_element(cache_.begin(), cache_.end(),
                               [](const Cached& a, const Cached& b) { return a.last_use < b.last_use; });
      entry->block = std::numeric_limits<std::uint64_t>::max();  // nothing, should the read fail
      narrow_ ? fill(block, whole16_, entry->tokens) : fill(block, whole32_, entry->tokens);
      entry->block = block;
    }
    entry->last_use = ++uses_;
    return entry->tokens;
  }

  template <class Stored>
  void fill(std::uint64_t block, std::vector<Stored>& scratch, std::vector<Token>& tokens) {
    scratch.resize(tokens_in(block));
    load(block, std::span<Stored>(scratch));
    tokens.assign(scratch.begin(), scratch.end());
  }

  Hdf5File file_;
  Hdf5Dataset tokens_;
  std::vector<std::uint64_t> digests_;
  std::uint64_t total_, block_tokens_;
  int vocabulary_;
  bool narrow_, streams_;
  std::vector<std::uint16_t> whole16_;  ///< the whole file, or scratch for one block
  std::vector<std::uint32_t> whole32_;
  std::mutex cache_mutex_;
  std::array<Cached, 32> cache_;
  std::uint64_t uses_ = 0;
};

TokenDataset::TokenDataset(const std::filesystem::path& file, std::size_t memory_limit) : path_(file) {
  Hdf5File opened = open_token_file(file);
  header_ = header_of(opened);
  blocks_ = std::make_unique<Blocks>(std::move(opened), header_, memory_limit);
  if (!streams()) lengths_of(blocks_->file(), header_);  // the file is read whole
}

TokenDataset::~TokenDataset() = default;
TokenDataset::TokenDataset(TokenDataset&&) noexcept = default;

void token_file::verify(const std::filesystem::path& file) {
  const TokenDataset dataset(file, 0);
  std::vector<Token> block(dataset.header().block_tokens);
  for (std::uint64_t first = 0; first < dataset.header().tokens; first += block.size()) {
    block.resize(std::min<std::uint64_t>(block.size(), dataset.header().tokens - first));
    dataset.read(first, block);
  }
  document_lengths(file, dataset.header());
}

token_file::DocumentLengths token_file::document_lengths(const std::filesystem::path& path,
                                                         const TokenFileHeader& header) {
  return lengths_of(open_token_file(path), header);
}

bool TokenDataset::streams() const {
  return blocks_->streams();
}

void TokenDataset::read(std::uint64_t first, std::span<Token> out) const {
  if (first > blocks_->total() || out.size() > blocks_->total() - first)
    throw std::out_of_range(
        fmt::format("{}: tokens {} to {} of {}", path_.string(), first, first + out.size(), blocks_->total()));
  blocks_->copy(first, out);
}

}  // namespace dekoder
