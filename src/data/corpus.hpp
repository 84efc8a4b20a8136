// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/token.hpp"
#include "io/files/input_file.hpp"

namespace dekoder {

/// A file, or standard input, that holds texts.
struct TextSource {
  std::filesystem::path path;  ///< PackedFile::standard_input: that
  bool json_lines;             ///< a document per line, else one
  FileState state;             ///< when the corpus was put together; every reading must find this one
};

/// The files in a folder, and in the folders in it (not links to them), in the order of their names; hidden ones
/// are left out. Throws ReadError.
std::vector<std::filesystem::path> files_below(const std::filesystem::path& folder);

/// The name of the first of several sources, and how many more there are.
std::string name_of_sources(const std::string& first, std::size_t sources);

/// The texts that a user names: files, folders, standard input.
class Corpus {
 public:
  /// Of a folder: files_below that are texts by their names (file_kind), which also tell JSON lines; standard input
  /// ("-") is such where `field` is given, which is the name of the texts in their objects (default: text). Throws
  /// DataError for a folder without texts, ConfigError for standard input given twice and a `field` that nothing
  /// has.
  Corpus(const std::vector<std::string>& words, const std::string& field, bool skip_bad_lines = false);

  const std::vector<TextSource>& sources() const { return sources_; }
  const std::string& field() const { return field_; }
  /// Whether JSON lines without a text are left out; else they are an error.
  bool skips_bad_lines() const { return skip_bad_lines_; }
  /// One text, not in JSON: its held-out part begins at a place in it.
  bool is_single_text() const { return sources_.size() == 1 && !sources_[0].json_lines; }
  /// Whether it can be read more than once.
  bool is_repeatable() const;
  /// The name of the first source, and how many more there are.
  std::string name() const;
  /// The same with the path of the first, for messages.
  std::string place() const;
  /// Of all files, packed as they are; 0 where one of them does not tell.
  std::uint64_t bytes_on_disk() const;

 private:
  std::vector<TextSource> sources_;
  std::string field_;
  bool skip_bad_lines_;
};

/// JSON lines that were left out (Corpus::skips_bad_lines).
struct SkippedLines {
  std::uint64_t count = 0;
  std::string first;  ///< what is wrong with the first of them, and where it is
};

/// A part of a document, in the text of its batch.
struct TextPart {
  std::size_t begin, bytes;
  std::size_t source;  ///< of Corpus::sources
  std::uint64_t line;  ///< of a JSON line that is still to be read, from 1; else 0
  bool ends_document;
  std::size_t tokens_end;  ///< in the tokens of the batch, set by whoever encodes
};

/// Neighbouring parts of a corpus that one thread works at.
struct TextBatch {
  std::string text;
  std::vector<TextPart> parts;
  std::vector<Token> tokens;
  SkippedLines skipped;

  std::string_view text_of(const TextPart& part) const {
    return std::string_view(text).substr(part.begin, part.bytes);
  }
};

/// How texts are cut that go on: bytes of `text` up to a place where it may be cut, 0 where there is none.
using TextCut = std::function<std::size_t(std::string_view text)>;

/// The last border of two characters in `text`, which is not empty; its end where it is no UTF-8.
std::size_t last_character_border(std::string_view text);

/// What threads do with a corpus.
struct CorpusWork {
  int threads = 1;
  TextCut cut;
  /// Makes what one thread calls for its batches.
  std::function<std::function<void(TextBatch&)>()> make_worker;
  /// Called by the caller's thread for all batches, in the order of the corpus.
  std::function<void(const TextBatch&)> take;
  const char* name = "";  ///< of the work, in lines of progress; "": shows none
};

/// Reads a corpus once: one thread reads and unpacks, `threads` work, the caller takes. Texts are cut into parts of
/// 256 KiB, longer ones where `cut` finds no place, at most 16 MiB: there it is the border of a character. These
/// places depend on the texts alone. In memory are 2 batches for each thread and 2 more, each of a part or of many
/// small documents, with its tokens; and JSON lines, of at most 1 GiB. Workers and `take` get batches with parts
/// alone. Throws the first failure in the order of the corpus: DataError for a broken JSON line and one without the
/// field, with file, line and what is expected, for a source that is no longer in the state of TextSource::state
/// when its reading begins or ends, and for one that is no text (foreign_format); what PackedFile and the workers
/// throw.
SkippedLines read_corpus(const Corpus& corpus, const CorpusWork& work);

}  // namespace dekoder
