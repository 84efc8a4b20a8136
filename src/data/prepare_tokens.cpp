// SPDX-License-Identifier: Apache-2.0
#include "data/prepare_tokens.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <optional>
#include <system_error>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/utf8.hpp"
#include "data/import_shards.hpp"
#include "data/text_encoder.hpp"
#include "data/token_file_writer.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/file_kind.hpp"
#include "io/files/packed_file.hpp"
#include "io/files/sha256.hpp"
#include "io/hdf5/hdf5_file.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

/// Digest and size of a corpus: of a single text's bytes, or of documents with their lengths.
class CorpusDigest {
 public:
  explicit CorpusDigest(bool single) : single_(single) {}
  void add(std::string_view text) {
    hash_.update(std::as_bytes(std::span(text)));
    document_ += text.size();
  }
  /// Returns the bytes of the document that ends here.
  std::uint64_t end_document() {
    const std::uint64_t bytes = std::exchange(document_, 0);
    if (!single_ && bytes > 0) hash_.update(std::as_bytes(std::span(&bytes, 1)));
    bytes_ += bytes;
    return bytes;
  }
  std::uint64_t bytes() const { return bytes_; }
  std::string finish() { return hash_.finish(); }

 private:
  bool single_;
  Sha256 hash_;
  std::uint64_t document_ = 0, bytes_ = 0;
};

/// Which documents are held out, asked in their order: of each group of 1 / fraction neighbours one, drawn by the
/// number of the group, so that the fraction is met at every length and no period of the corpus meets this one's.
class HeldOutDraw {
 public:
  explicit HeldOutDraw(double fraction) : fraction_(fraction) {}
  bool is_held_out(std::uint64_t document) {
    if (fraction_ <= 0) return false;
    while (document >= end_) next_group();
    return document == drawn_;
  }

 private:
  void next_group() {
    const auto border = [&](std::uint64_t group) {
      return static_cast<std::uint64_t>(std::ceil(static_cast<double>(group) / fraction_));
    };
    const std::uint64_t begin = border(group_);
    end_ = border(group_ + 1);
    if (end_ > begin) drawn_ = begin + mixed(group_) % (end_ - begin);
    ++group_;
  }
  /// The mixing function of SplitMix64 (Steele, Lea, Flood 2014).
  static std::uint64_t mixed(std::uint64_t value) {
    value += 0x9E3779B97F4A7C15;
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
    value = (value ^ value >> 27) * 0x94D049BB133111EB;
    return value ^ value >> 31;
  }

  double fraction_;
  std::uint64_t group_ = 0, end_ = 0, drawn_ = 0;
};

/// What is held out, until it can be appended: records {tokens, whether a document ends with them; the tokens} in a
/// file that goes away with its object, or with the next PendingFile there after a kill.
template <class Stored>
class WaitingTokens {
 public:
  explicit WaitingTokens(const fs::path& output) : pending_(output, "held_out") {
    descriptor_ = ::open(pending_.temporary().c_str(), O_RDWR | O_CLOEXEC);
    if (descriptor_ < 0) fail("cannot be opened", errno);
  }
  ~WaitingTokens() { ::close(descriptor_); }
  WaitingTokens(const WaitingTokens&) = delete;

  void append(std::span<const Stored> tokens, bool ends) {
    const Record record{tokens.size(), ends};
    buffer_.append(reinterpret_cast<const char*>(&record), sizeof(record));
    buffer_.append(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes());
    if (buffer_.size() >= buffer_bytes) flush();
  }
  /// Calls visit(tokens, ends) for everything that was appended.
  template <class Visit>
  void for_each(Visit&& visit) {
    flush();
    if (::lseek(descriptor_, 0, SEEK_SET) != 0) fail("cannot be read", errno);
    buffer_.resize(buffer_bytes);
    std::size_t begin = 0, end = 0;
    const auto take = [&](void* out, std::size_t bytes) {
      for (auto* to = static_cast<char*>(out); bytes > 0;) {
        if (begin == end) {
          ssize_t got;
          do got = ::read(descriptor_, buffer_.data(), buffer_.size());
          while (got < 0 && errno == EINTR);
          if (got <= 0) fail("cannot be read", got < 0 ? errno : EIO);
          begin = 0, end = static_cast<std::size_t>(got);
        }
        const std::size_t taken = std::min(bytes, end - begin);
        std::memcpy(to, buffer_.data() + begin, taken);
        to += taken, begin += taken, bytes -= taken;
      }
    };
    std::vector<Stored> tokens;
    for (std::uint64_t read = 0; read < written_;) {
      Record record;
      take(&record, sizeof(record));
      tokens.resize(record.tokens);
      take(tokens.data(), tokens.size() * sizeof(Stored));
      read += sizeof(record) + tokens.size() * sizeof(Stored);
      visit(std::span<const Stored>(tokens), record.ends != 0);
    }
  }

 private:
  struct Record {
    std::uint64_t tokens, ends;
  };
  static constexpr std::size_t buffer_bytes = std::size_t{1} << 20;
  [[noreturn]] void fail(const char* what, int error) const {
    throw DataError("{}: its held-out part {} in a temporary file: {}; {}", pending_.target().string(), what,
                    std::strerror(error), write_remedy(error));
  }
  void flush() {
    if (const int error = write_whole(descriptor_, buffer_)) fail("cannot be written", error);
    written_ += buffer_.size();
    buffer_.clear();
  }

  PendingFile pending_;
  int descriptor_ = -1;
  std::string buffer_;
  std::uint64_t written_ = 0;
};

/// Puts encoded batches, in their order, into a token file.
template <class Stored>
class TextTokens {
 public:
  /// `total`: the tokens there will be; 0: not known.
  TextTokens(Hdf5File& file, TokenFileHeader& header, bool single, std::uint64_t total, const fs::path& output)
      : header_(header),
        single_(single),
        tells_documents_(!single || header.tokenizer.kind() == TokenizerKind::byte_pairs),
        end_of_text_(header.tokenizer.end_of_text()),
        digest_(single),
        draw_(single ? 0 : header.validation_fraction),
        writer_(file, total) {
    if (!single && header.validation_fraction > 0) waiting_.emplace(output);
  }

  void take(const TextBatch& batch) {
    std::size_t begin = 0;
    for (const TextPart& part : batch.parts) {
      digest_.add(batch.text_of(part));
      scratch_.assign(batch.tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                      batch.tokens.begin() + static_cast<std::ptrdiff_t>(part.tokens_end));
      begin = part.tokens_end;
      const std::uint64_t bytes = part.ends_document ? digest_.end_document() : 0;
      const bool ends = part.ends_document && bytes > 0;
      if (ends && end_of_text_ >= 0) scratch_.push_back(static_cast<Stored>(end_of_text_));
      if (!header_.tokenizer.keeps_bytes()) count_lost(scratch_);
      const bool held_out = draw_.is_held_out(documents_);
      if (held_out)
        waiting_->append(scratch_, ends);
      else
        writer_.push(scratch_);
      if (part.ends_document && !ends) ++header_.empty_documents;
      if (!ends) continue;
      ++documents_;
      if (held_out)
        ++header_.validation_documents, header_.validation_bytes += bytes;
      else if (tells_documents_)
        writer_.push_end();
    }
  }

  /// Writes what is left, and fills the header in.
  void finish(const std::string& name) {
    const std::uint64_t training = writer_.pushed();
    if (waiting_)
      waiting_->for_each([&](std::span<const Stored> tokens, bool ends) {
        writer_.push(tokens);
        if (ends) writer_.push_end();
      });
    header_.tokens = writer_.pushed();
    header_.training_tokens =
        single_ ? token_file::training_part(header_.tokens, header_.validation_fraction) : training;
    token_file::require_training_part(header_, name);
    header_.source_bytes = digest_.bytes();
    header_.source_sha256 = digest_.finish();
    const bool keeps_bytes = header_.tokenizer.keeps_bytes();
    const std::uint64_t held_out =
        single_ || !keeps_bytes ? writer_.bytes_from(header_.training_tokens, header_.tokenizer) : 0;
    if (!keeps_bytes) header_.validation_token_bytes = held_out;
    if (single_)  // without its bytes in the tokens: its share of theirs
      header_.validation_bytes = keeps_bytes || token_bytes_ == 0
                                     ? std::min(held_out, header_.source_bytes)
                                     : static_cast<std::uint64_t>(std::llround(
                                           static_cast<double>(header_.source_bytes) *
                                           (static_cast<double>(held_out) / static_cast<double>(token_bytes_))));
    writer_.finish(header_, name);
    header_.split_by_document = !single_;
  }

 private:
  void count_lost(const std::vector<Stored>& tokens) {
    const Token unknown = header_.tokenizer.unknown();
    for (const Stored token : tokens) {
      token_bytes_ += header_.tokenizer.bytes_of(static_cast<Token>(token));
      header_.unknown_tokens += static_cast<Token>(token) == unknown ? 1 : 0;
    }
  }

  TokenFileHeader& header_;
  bool single_, tells_documents_;
  Token end_of_text_;
  CorpusDigest digest_;
  HeldOutDraw draw_;
  TokenFileWriter<Stored> writer_;
  std::optional<WaitingTokens<Stored>> waiting_;
  std::vector<Stored> scratch_;
  std::uint64_t documents_ = 0;
  std::uint64_t token_bytes_ = 0;  ///< of the tokens' texts, where these are not the source's
};

/// The token file that is there already, of the present format; throws where something else is.
std::optional<TokenFileHeader> earlier_output(const fs::path& output) {
  std::error_code ignored;
  if (!fs::exists(output, ignored)) return std::nullopt;
  try {
    return token_file::read_header(output);
  } catch (const token_file::OlderFormatError&) {
    return std::nullopt;
  } catch (const ReadError&) {
    throw;  // it may be as good as ever
  } catch (const DataError& error) {
    throw DataError("{}: is there already and is no usable token file ({}); remove it or name another output",
                    output.string(), error.what());
  }
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

std::string digest_of(const Corpus& corpus, SkippedLines& skipped) {
  CorpusDigest digest(corpus.is_single_text());
  CorpusWork work;
  work.name = "is it prepared already";
  work.cut = [](std::string_view text) { return text.size(); };
  work.make_worker = [] { return [](TextBatch&) {}; };
  work.take = [&](const TextBatch& batch) {
    for (const TextPart& part : batch.parts) {
      digest.add(batch.text_of(part));
      if (part.ends_document) digest.end_document();
    }
  };
  skipped = read_corpus(corpus, work);
  return digest.finish();
}

double fraction_of(const PrepareOptions& options) {
  return options.validation_fraction.value_or(token_file::default_validation_fraction);
}

/// Whether a file has these texts, made in the same way.
bool is_prepared(const TokenFileHeader& there, const Corpus& corpus, const Tokenizer& tokenizer,
                 const PrepareOptions& options, SkippedLines& skipped) {
  const double fraction = fraction_of(options);
  const bool same_split =
      corpus.is_single_text()
          ? !there.split_by_document && there.training_tokens == token_file::training_part(there.tokens, fraction)
          : there.split_by_document && there.validation_fraction == fraction;
  return same_split && there.tokenizer == tokenizer && corpus.is_repeatable() &&
         there.source_sha256 == digest_of(corpus, skipped) && is_whole(options.output);
}

/// The tokens that a corpus will have, where that is known before; else 0.
std::uint64_t known_tokens(const Corpus& corpus, const ChosenTokenizer& chosen) {
  if (!corpus.is_single_text() || !corpus.is_repeatable()) return 0;
  const fs::path& path = corpus.sources()[0].path;
  if (chosen.tokenizer.kind() != TokenizerKind::bytes) return chosen.tokens;
  return PackedFile(path).packed() ? 0 : corpus.bytes_on_disk();
}

template <class Stored>
void write_tokens(const Corpus& corpus, const PrepareOptions& options, std::uint64_t total, Hdf5File& file,
                  TokenFileHeader& header, SkippedLines& skipped) {
  TextTokens<Stored> writer(file, header, corpus.is_single_text(), total, options.output);
  CorpusWork work;
  work.threads = options.threads;
  work.name = "tokens";
  work.cut = text_cut(header.tokenizer);
  work.make_worker = [&] { return text_encoder(header.tokenizer, corpus); };
  work.take = [&](const TextBatch& batch) { writer.take(batch); };
  skipped = read_corpus(corpus, work);
  writer.finish(corpus.place());
}

/// Makes the output by write(file, report), which sets the report's header.
template <class Write>
PrepareReport make_output(const fs::path& output, Write&& write) {
  PrepareReport report;
  PendingFile pending(output, "tokens");
  Hdf5File file = Hdf5File::create(pending);
  write(file, report);
  token_file::write_header(file, report.header);
  file.close();
  pending.commit(token_file::verify);
  return report;
}

PrepareReport prepare_texts(const Corpus& corpus, const PrepareOptions& options) {
  const std::optional<TokenFileHeader> there = earlier_output(options.output);
  const ChosenTokenizer chosen = choose_tokenizer(options.tokenizer, corpus, options.threads);
  SkippedLines skipped;
  if (there && is_prepared(*there, corpus, chosen.tokenizer, options, skipped)) return {true, *there, skipped};
  PrepareReport made = make_output(options.output, [&](Hdf5File& file, PrepareReport& report) {
    TokenFileHeader& header = report.header;
    header.tokenizer = chosen.tokenizer;
    header.source = corpus.name();
    header.validation_fraction = fraction_of(options);
    const std::uint64_t total = known_tokens(corpus, chosen);
    with_stored_type(header.tokenizer.vocabulary(), [&](auto stored) {
      write_tokens<decltype(stored)>(corpus, options, total, file, header, report.skipped);
    });
  });
  // Behind all that may fail: an error comes alone.
  if (const int vocabulary = chosen.tokenizer.vocabulary(); vocabulary < options.tokenizer.vocabulary)
    log_warning("the texts have pairs for a vocabulary of {} only, not {}", vocabulary,
                options.tokenizer.vocabulary);
  return made;
}

PrepareReport prepare_shards(const TokenShards& shards, const PrepareOptions& options) {
  if (!options.field.empty())
    throw ConfigError("--field is '{}' and no text is JSON lines: {} holds tokens; leave it out",
                      excerpt(options.field), shards.place());
  if (options.skip_bad_lines)
    throw ConfigError("--skip-bad-lines is given and no text is JSON lines: {} holds tokens; leave it out",
                      shards.place());
  const Tokenizer tokenizer = choose_tokenizer(options.tokenizer);
  const ShardImport source(shards, tokenizer, options.validation_fraction);
  const std::optional<TokenFileHeader> there = earlier_output(options.output);
  if (there && source.is_source_of(*there) && is_whole(options.output)) return {true, *there, {}};
  return make_output(options.output,
                     [&](Hdf5File& file, PrepareReport& report) { source.write(file, report.header); });
}

/// An output must be no source, neither of this call nor, by its name in one of the folders, of the next one.
void require_no_source_by_name(const fs::path& output, const std::vector<std::string>& words) {
  if (file_kind(output).contents == Contents::unknown) return;
  std::error_code failure;
  const fs::path target = fs::weakly_canonical(output_target(output), failure);
  for (const std::string& word : words) {
    if (!fs::is_directory(word, failure)) continue;
    const fs::path below = target.lexically_relative(fs::canonical(word, failure));
    const bool is_read = !below.empty() && std::none_of(below.begin(), below.end(), [](const fs::path& part) {
      return part.string().starts_with('.');  // hidden, or not below
    });
    if (is_read)
      throw ConfigError(
          "--output {} has the name of a text or token shard, and is in {}, whose texts and shards are read; "
          "expected another ending, e.g. {}.h5, or another folder",
          output.string(), word, output.string());
  }
}

template <class Sources>
void require_no_source(const fs::path& output, const Sources& sources) {
  const FileState there = file_state(output);
  if (there == FileState{}) return;
  for (const auto& source : sources)
    if (source.state.is_same_file(there))
      throw ConfigError("--output {} is the same file as {}, which is read; expected another name", output.string(),
                        source.path.string());
}

}  // namespace

PrepareReport prepare_tokens(const PrepareOptions& options) {
  const double fraction = fraction_of(options);
  if (!(fraction >= 0 && fraction < 1))
    throw ConfigError("validation fraction: got {}, expected 0 or more and below 1", fraction);
  const fs::path target = output_target(options.output);  // before the sources are read: it may take long
  remove_left_over_files(target.parent_path());           // though nothing may have to be written
  require_no_source_by_name(options.output, options.sources);
  if (const std::optional<TokenShards> shards = TokenShards::of_words(options.sources)) {
    require_no_source(options.output, shards->shards());
    return prepare_shards(*shards, options);
  }
  const Corpus corpus(options.sources, options.field, options.skip_bad_lines);
  require_no_source(options.output, corpus.sources());
  return prepare_texts(corpus, options);
}

PrepareReport prepare_tokens(const fs::path& text, const fs::path& output, TokenizerKind kind,
                             double validation_fraction) {
  PrepareOptions options;
  options.sources = {text.string()};
  options.output = output;
  options.tokenizer.name = tokenizer_kind_name(kind);
  options.validation_fraction = validation_fraction;
  return prepare_tokens(options);
}

}  // namespace dekoder
