// SPDX-License-Identifier: Apache-2.0
#include "data/corpus.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.hpp"
#include "base/helper_thread.hpp"
#include "base/utf8.hpp"
#include "data/reading_progress.hpp"
#include "io/files/file_kind.hpp"
#include "io/files/input_file.hpp"
#include "io/files/packed_file.hpp"
#include "tokenizer/sentencepiece_tokenizer.hpp"

namespace dekoder {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t part_bytes = std::size_t{1} << 18, most_part_bytes = SentencePieceTokenizer::most_text;
constexpr std::size_t most_parts = 4096, most_line_bytes = std::size_t{1} << 30;

void add_files_below(const fs::path& folder, std::vector<fs::path>& files) {
  std::error_code failure;
  std::vector<fs::path> entries = folder_entries(folder, failure);
  if (failure) throw_read_error(folder.string(), failure.value(), "cannot be listed");
  std::sort(entries.begin(), entries.end());
  for (const fs::path& entry : entries) {
    if (entry.filename().string().starts_with('.')) continue;
    std::error_code ignored;
    if (fs::is_directory(fs::symlink_status(entry, ignored)))
      add_files_below(entry, files);
    else if (!fs::is_directory(entry, ignored))
      files.push_back(entry);
  }
}

}  // namespace

std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  add_files_below(folder, files);
  return files;
}

std::string name_of_sources(const std::string& first, std::size_t sources) {
  return sources == 1 ? first : fmt::format("{} and {} more", first, sources - 1);
}

namespace {

/// A text that is there twice could be trained on and held out.
void require_each_once(const std::vector<TextSource>& sources) {
  std::map<std::pair<std::uint64_t, std::uint64_t>, const TextSource*> files;
  for (const TextSource& source : sources) {
    if (source.state == FileState{}) continue;  // standard input, or missing: its reading says so
    const auto [first, is_new] = files.try_emplace({source.state.device, source.state.inode}, &source);
    if (!is_new)
      throw ConfigError(
          "{}: is the same file as {}, which is among the texts already; expected each once, as a text that is "
          "there "
          "twice could be trained on and held out (a mixture weighs texts: data.weights)",
          source.path.string(), first->second->path.string());
  }
}

}  // namespace

Corpus::Corpus(const std::vector<std::string>& words, const std::string& field, bool skip_bad_lines)
    : field_(field.empty() ? "text" : field), skip_bad_lines_(skip_bad_lines) {
  bool standard_input = false;
  for (const std::string& word : words) {
    if (word == PackedFile::standard_input) {
      if (standard_input) throw ConfigError("- is there twice; expected standard input once");
      standard_input = true;
      sources_.push_back({word, !field.empty(), {}});
      continue;
    }
    std::vector<fs::path> files = {word};
    std::error_code ignored;
    if (fs::is_directory(word, ignored)) {
      files = files_below(word);
      std::erase_if(files, [](const fs::path& file) { return !file_kind(file).is_text(); });
      if (files.empty())
        throw DataError(
            "{}: is a folder without texts; expected files *.txt or *.jsonl in it, also .gz or .zst, or token "
            "shards (*.bin)",
            word);
    }
    for (fs::path& file : files) {
      const bool json_lines = file_kind(file).contents == Contents::json_lines;
      const FileState state = file_state(file);
      sources_.push_back({std::move(file), json_lines, state});
    }
  }
  require_each_once(sources_);
  const bool any_json = std::any_of(sources_.begin(), sources_.end(), [](const auto& s) { return s.json_lines; });
  if (!field.empty() && !any_json)
    throw ConfigError(
        "--field is '{}' and no text is JSON lines; expected names that end in .jsonl, .jsonl.gz or "
        ".jsonl.zst, or standard input",
        excerpt(field));
  if (skip_bad_lines && !any_json)
    throw ConfigError(
        "--skip-bad-lines is given and no text is JSON lines, which alone have such; leave it out, or for standard "
        "input name the field with --field");
}

bool Corpus::is_repeatable() const {
  return std::none_of(sources_.begin(), sources_.end(),
                      [](const TextSource& source) { return source.path == PackedFile::standard_input; });
}

std::string Corpus::name() const {
  const fs::path& path = sources_[0].path;
  return name_of_sources(path == PackedFile::standard_input ? input_name(path) : path.filename().string(),
                         sources_.size());
}

std::string Corpus::place() const {
  return name_of_sources(input_name(sources_[0].path), sources_.size());
}

std::uint64_t Corpus::bytes_on_disk() const {
  if (!is_repeatable()) return 0;
  std::uint64_t bytes = 0;
  for (const TextSource& source : sources_) bytes += source.state.bytes;
  return bytes;
}

std::size_t last_character_border(std::string_view text) {
  std::size_t at = text.size();
  while (at > text.size() - std::min<std::size_t>(text.size(), 3) &&
         (static_cast<unsigned char>(text[at - 1]) & 0xC0) == 0x80)
    --at;
  const std::size_t front = at > 0 ? at - 1 : at;
  return front > 0 && utf8_front(text.substr(front)).kind == Utf8Front::Kind::incomplete ? front : text.size();
}

namespace {

/// Bytes of the first part of a text of which at least `text` is there: 0 where more must be, up to the next
/// wanted(bytes).
class PartFinder {
 public:
  explicit PartFinder(const TextCut& cut) : cut_(cut) {}
  /// Bytes to look at for the next part.
  std::size_t wanted() const { return wanted_; }
  /// Where to cut these `wanted()` bytes; 0: at none of them, and wanted() is more now.
  std::size_t cut(std::string_view text) {
    std::size_t at = cut_(text);
    if (at == 0 && wanted_ < most_part_bytes) {
      wanted_ *= 2;
      return 0;
    }
    wanted_ = part_bytes;
    return at == 0 ? last_character_border(text) : at;
  }

 private:
  const TextCut& cut_;
  std::size_t wanted_ = part_bytes;
};

/// Puts the texts of JSON lines in the place of these.
class JsonReader {
 public:
  JsonReader(const Corpus& corpus, const TextCut& cut) : corpus_(corpus), cut_(cut) {}

  void operator()(TextBatch& batch) const {
    if (std::none_of(batch.parts.begin(), batch.parts.end(), [](const TextPart& part) { return part.line > 0; }))
      return;
    TextBatch read;
    for (const TextPart& part : batch.parts) {
      if (part.line == 0) {
        add(read, batch.text_of(part), part.source, part.ends_document);
        continue;
      }
      std::string whole;
      try {
        whole = text_of_line(batch.text_of(part), part);
      } catch (const DataError& error) {
        if (!corpus_.skips_bad_lines()) throw;
        if (read.skipped.count++ == 0) read.skipped.first = error.what();
        continue;
      }
      std::string_view text = whole;
      for (PartFinder finder(cut_); text.size() >= finder.wanted();)
        if (const std::size_t bytes = finder.cut(text.substr(0, finder.wanted()))) {
          add(read, text.substr(0, bytes), part.source, false);
          text.remove_prefix(bytes);
        }
      add(read, text, part.source, true);
    }
    batch = std::move(read);
  }

 private:
  static void add(TextBatch& batch, std::string_view text, std::size_t source, bool ends) {
    batch.parts.push_back({batch.text.size(), text.size(), source, 0, ends, 0});
    batch.text += text;
  }
  std::string text_of_line(std::string_view line, const TextPart& part) const {
    const auto fail = [&](const std::string& what) {
      throw DataError("{}:{}: {}; expected a JSON object in each line, with its text in the field \"{}\"",
                      input_name(corpus_.sources()[part.source].path), part.line, what, excerpt(corpus_.field()));
    };
    // The library takes a NUL for the end: what follows would be lost, other documents included.
    if (const std::size_t nul = line.find('\0'); nul != line.npos)
      fail(fmt::format("is no JSON, at byte {} of the line: a NUL byte", nul + 1));
    nlohmann::json object;
    const char* shortened = "";
    try {
      try {
        object = nlohmann::json::parse(line);
      } catch (const nlohmann::json::out_of_range&) {
        shortened = ", whose long numbers are cut short";
        object = nlohmann::json::parse(with_small_numbers(line));
      }
    } catch (const nlohmann::json::parse_error& error) {
      std::string reason = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 9: ..."
      reason = reason.substr(std::min(reason.find(": "), reason.size() - 2) + 2);
      fail(fmt::format("is no JSON, at byte {} of the line{}: {}", error.byte, shortened, excerpt(reason, 300)));
    }
    if (!object.is_object()) fail(fmt::format("is of type {}", object.type_name()));
    const auto found = object.find(corpus_.field());
    if (found == object.end()) fail(fmt::format("has no field \"{}\"", excerpt(corpus_.field())));
    if (!found->is_string())
      fail(fmt::format("its field \"{}\" is of type {}", excerpt(corpus_.field()), found->type_name()));
    return std::move(found->get_ref<std::string&>());
  }

  /// A line whose numbers a double holds, all below 100: JSON has larger ones, which are not the text and must not
  /// keep it from being read. Digits of exponents become 0, and those of whole parts behind the second go away, so
  /// that what was no JSON (01, 1e) is none still.
  static std::string with_small_numbers(std::string_view line) {
    std::string small;
    bool in_string = false, in_exponent = false;
    int digits = 0;  // of the whole part so far
    for (std::size_t i = 0; i < line.size(); ++i) {
      char c = line[i];
      if (in_string) {
        small += c;
        if (c == '\\' && i + 1 < line.size()) small += line[++i];
        in_string = c != '"';
        continue;
      }
      const bool digit = c >= '0' && c <= '9', sign = c == '+' || c == '-';
      if (digit && in_exponent) c = '0';
      if (digit && !in_exponent && ++digits > 2) continue;
      if (c == '.') digits = INT_MIN;  // a fraction keeps its digits
      if (c == 'e' || c == 'E') in_exponent = true;
      if (!digit && !sign && c != '.' && c != 'e' && c != 'E') digits = 0, in_exponent = false;
      in_string = c == '"';
      small += c;
    }
    return small;
  }

  const Corpus& corpus_;
  const TextCut& cut_;
};

/// Batches on their way from one reader through many workers to one taker, who gets them in their order.
class BatchQueue {
 public:
  explicit BatchQueue(std::size_t most) : most_(most) {}

  /// Waits for room; false once all is to stop.
  bool put(TextBatch batch) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || in_order_.size() < most_; });
    if (stopped_) return false;
    to_do_.push_back(in_order_.emplace_back(std::make_shared<Slot>(Slot{std::move(batch), {}, false})));
    changed_.notify_all();
    return true;
  }
  /// No further batch comes; `failure` is what ended the reading, or null.
  void end(std::exception_ptr failure) {
    const std::lock_guard lock(mutex_);
    if (failure) in_order_.push_back(std::make_shared<Slot>(Slot{{}, failure, true}));
    ended_ = true;
    changed_.notify_all();
  }
  /// Works until there is nothing left to do.
  void work(const std::function<void(TextBatch&)>& act) {
    for (;;) {
      std::shared_ptr<Slot> slot;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stopped_ || ended_ || !to_do_.empty(); });
        if (stopped_ || to_do_.empty()) return;
        slot = std::move(to_do_.front());
        to_do_.pop_front();
      }
      try {
        act(slot->batch);
      } catch (...) {
        slot->failure = std::current_exception();
      }
      const std::lock_guard lock(mutex_);
      slot->done = true;
      changed_.notify_all();
    }
  }
  /// The next batch, waiting at most a fifth of a second: null; rethrows its failure. `at_end`: there are no more.
  std::unique_ptr<TextBatch> take(bool& at_end) {
    std::unique_lock lock(mutex_);
    const auto ready = [&] { return in_order_.empty() ? ended_ : in_order_.front()->done; };
    constexpr std::chrono::milliseconds patience{200};
    if (!changed_.wait_for(lock, patience, ready)) return nullptr;
    if ((at_end = in_order_.empty())) return nullptr;
    const std::shared_ptr<Slot> slot = std::move(in_order_.front());
    in_order_.pop_front();
    changed_.notify_all();
    if (slot->failure) std::rethrow_exception(slot->failure);
    return std::make_unique<TextBatch>(std::move(slot->batch));
  }
  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }
  const std::atomic<bool>& stopped() const { return stopped_; }

 private:
  struct Slot {
    TextBatch batch;
    std::exception_ptr failure;
    bool done;
  };
  std::size_t most_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Slot>> in_order_, to_do_;
  bool ended_ = false;
  std::atomic<bool> stopped_ = false;
};

/// Reads the sources one after the other and hands their parts on.
class CorpusReader {
 public:
  CorpusReader(const Corpus& corpus, const TextCut& cut, BatchQueue& queue, std::atomic<std::uint64_t>& raw_bytes)
      : corpus_(corpus), cut_(cut), queue_(queue), raw_bytes_(raw_bytes) {}

  void read() {
    for (std::size_t i = 0; i < corpus_.sources().size() && !queue_.stopped(); ++i) {
      const TextSource& source = corpus_.sources()[i];
      PackedFile file(source.path, &queue_.stopped());
      file.require_state(source.state);
      state_ = &source.state;
      at_front_ = true;
      source.json_lines ? read_lines(file, i) : read_text(file, i);
      raw_before_ += file.raw_bytes();
    }
    hand_on();
  }

 private:
  /// Makes `text` of `bytes` bytes, unless the file ends before; false then.
  bool fill(PackedFile& file, std::string& text, std::size_t bytes) {
    const std::size_t had = text.size();
    text.resize(bytes);
    try {
      text.resize(had + file.read(std::span(text).subspan(had)));
    } catch (const ReadError&) {
      throw;
    } catch (const DataError&) {
      file.require_state(*state_);  // packed bytes that are damaged may be so for now only
      throw;
    }
    raw_bytes_ = raw_before_ + file.raw_bytes();
    if (const auto foreign = std::exchange(at_front_, false) ? foreign_format(text) : std::nullopt)
      throw DataError("{}: is no text, but {}; {}", file.name(), foreign->name, foreign->remedy);
    if (text.size() < bytes) file.require_state(*state_);  // before the last part, which may be cut, is handed on
    return text.size() == bytes;
  }
  void read_text(PackedFile& file, std::size_t source) {
    std::string text;
    for (PartFinder finder(cut_); !queue_.stopped() && fill(file, text, finder.wanted());)
      if (const std::size_t bytes = finder.cut(text)) {
        add(std::string_view(text).substr(0, bytes), source, 0, false);
        text.erase(0, bytes);
      }
    add(text, source, 0, true);
  }
  void read_lines(PackedFile& file, std::size_t source) {
    std::string text;
    std::uint64_t number = 0;
    for (bool more = true; more && !queue_.stopped();) {
      const std::size_t had = text.size();
      if (had > most_line_bytes)
        throw DataError("{}:{}: has more than 1 GiB; expected a JSON object in each line",
                        input_name(corpus_.sources()[source].path), number + 1);
      more = fill(file, text, std::max(2 * had, part_bytes));
      std::size_t begin = 0, look = had;
      while (begin < text.size()) {
        std::size_t end = text.find('\n', std::max(begin, look));
        if (end == std::string::npos && more) break;
        end = std::min(end, text.size());
        const std::string_view line = std::string_view(text).substr(begin, end - begin);
        ++number;
        if (line.find_first_not_of(" \t\r") != std::string_view::npos) add(line, source, number, true);
        begin = std::min(end + 1, text.size());
      }
      text.erase(0, begin);
    }
  }
  void add(std::string_view text, std::size_t source, std::uint64_t line, bool ends) {
    if (!batch_.parts.empty() && batch_.text.size() + text.size() > part_bytes) hand_on();
    batch_.parts.push_back({batch_.text.size(), text.size(), source, line, ends, 0});
    batch_.text += text;
    if (batch_.text.size() >= part_bytes || batch_.parts.size() >= most_parts) hand_on();
  }
  void hand_on() {
    if (!batch_.parts.empty()) queue_.put(std::exchange(batch_, {}));
  }

  const Corpus& corpus_;
  const TextCut& cut_;
  BatchQueue& queue_;
  std::atomic<std::uint64_t>& raw_bytes_;
  std::uint64_t raw_before_ = 0;
  const FileState* state_ = nullptr;  ///< that the source must be in
  bool at_front_ = false;             ///< of the source
  TextBatch batch_;
};

/// Threads that are told to stop, and waited for, however the reading ends.
struct CorpusThreads {
  BatchQueue& queue;
  std::vector<std::thread> threads;
  ~CorpusThreads() {
    queue.stop();
    for (std::thread& thread : threads) thread.join();
  }
};

}  // namespace

SkippedLines read_corpus(const Corpus& corpus, const CorpusWork& work) {
  const int threads = std::max(work.threads, 1);
  BatchQueue queue(2 * static_cast<std::size_t>(threads) + 2);
  std::atomic<std::uint64_t> raw_bytes = 0;
  ReadingProgress progress(work.name, corpus.bytes_on_disk());
  CorpusThreads running{queue, {}};
  running.threads.push_back(start_helper_thread("dekoder-read", [&] {
    std::exception_ptr failure;
    try {
      CorpusReader(corpus, work.cut, queue, raw_bytes).read();
    } catch (...) {
      failure = std::current_exception();
    }
    queue.end(failure);
  }));
  for (int i = 0; i < threads; ++i)
    running.threads.push_back(start_helper_thread("dekoder-encode", [&] {
      const JsonReader read_json(corpus, work.cut);
      const auto act = work.make_worker();
      queue.work([&](TextBatch& batch) {
        read_json(batch);
        if (!batch.parts.empty()) act(batch);
      });
    }));
  SkippedLines skipped;
  bool any = false;
  for (bool at_end = false; !at_end;) {
    if (const auto batch = queue.take(at_end)) {
      if (skipped.count == 0) skipped.first = batch->skipped.first;
      skipped.count += batch->skipped.count;
      any = any || !batch->parts.empty();
      if (!batch->parts.empty()) work.take(*batch);
    }
    progress.show(raw_bytes);
  }
  if (!any && skipped.count > 0)
    throw DataError("{}: has no text, as all of its {} JSON lines are bad; the first: {}", corpus.place(),
                    skipped.count, skipped.first);
  return skipped;
}

}  // namespace dekoder
