// SPDX-License-Identifier: Apache-2.0
// Texts and shards that change while they are read are refused, whatever happens to them and whenever; files are
// told apart by their names.
#include "data/corpus.hpp"

#include <gtest/gtest.h>
#include <zlib.h>

#include "base/error.hpp"
#include "data/token_shards.hpp"
#include "io/files/file_kind.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing_support::message_of;
using testing_support::ScratchFolder;

/// What happens to a file, and what the refusal says of it.
struct Change {
  const char* said;
  std::function<void(const fs::path&)> act;
};

/// Keeps the time of the last change, so that the size, the file or the time alone tells.
template <class Act>
void act_in_the_same_time(const fs::path& file, Act act) {
  const auto time = fs::last_write_time(file);
  act();
  fs::last_write_time(file, time);
}

std::vector<Change> changes() {
  return {{"bytes and has",
           [](const fs::path& file) {
             act_in_the_same_time(file, [&] { fs::resize_file(file, fs::file_size(file) - 2); });
           }},
          {"bytes and has",
           [](const fs::path& file) {
             act_in_the_same_time(file, [&] { std::ofstream(file, std::ios::app) << "{}\n{}"; });
           }},
          {"it is no longer there", [](const fs::path& file) { fs::remove(file); }},
          {"another file has taken its place",
           [](const fs::path& file) {
             const fs::path other = file.string() + ".other";
             fs::copy_file(file, other);
             fs::last_write_time(other, fs::last_write_time(file));
             fs::rename(other, file);
           }},
          {"it was written to", [](const fs::path& file) {
             std::fstream(file, std::ios::in | std::ios::out) << "{";
             fs::last_write_time(file, fs::last_write_time(file) + std::chrono::microseconds(1));
           }}};
}

CorpusWork reading(std::function<void(const TextBatch&)> take) {
  CorpusWork work;
  work.cut = [](std::string_view text) { return text.size(); };
  work.make_worker = [] { return [](TextBatch&) {}; };
  work.take = std::move(take);
  return work;
}

std::string packed(const std::string& text, const fs::path& file) {
  gzFile out = gzopen(file.c_str(), "wb0");  // stored, so that the file is as long as the text
  gzwrite(out, text.data(), static_cast<unsigned>(text.size()));
  gzclose(out);
  return file.string();
}

TEST(Corpus, ATextThatChangesWhileItIsReadIsRefused) {
  std::string text;
  while (text.size() < (8u << 20)) text += "{\"text\": \"a text of some length\"}\n";
  for (const char* name : {"a.txt", "a.jsonl", "a.txt.gz"})
    for (const Change& change : changes()) {
      const ScratchFolder scratch("corpus");
      const std::string file = scratch.write(name, text).string();
      if (file.ends_with(".gz")) packed(text, file);
      const Corpus corpus({file}, "");
      bool changed = false;  // with the first of 32 parts, when the reader is at most 8 ahead
      const std::string said = message_of<DataError>([&] {
        read_corpus(corpus, reading([&](const TextBatch&) {
                      if (!std::exchange(changed, true)) change.act(file);
                    }));
      });
      EXPECT_EQ(said.find(file + ": changed while it was read: "), 0u)
          << name << ", " << change.said << ": " << said;
      EXPECT_NE(said.find(change.said), std::string::npos) << said;
    }
}

TEST(Corpus, ATextThatChangesBetweenTwoReadingsIsRefused) {
  for (const Change& change : changes()) {
    const ScratchFolder scratch("corpus");
    const std::string file = scratch.write("a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n").string();
    const std::string other = scratch.write("b.txt", "another").string();
    const Corpus corpus({other, file}, "");
    std::size_t parts = 0;
    read_corpus(corpus, reading([&](const TextBatch& batch) { parts += batch.parts.size(); }));
    EXPECT_EQ(parts, 3u);
    change.act(file);
    const std::string said = message_of<DataError>([&] { read_corpus(corpus, reading([](const TextBatch&) {})); });
    const bool is_gone = !fs::exists(file);
    EXPECT_EQ(said.find(file + (is_gone ? ": no such text file" : ": changed while it was read: ")), 0u) << said;
  }
}

TEST(TokenShards, AShardThatChangesWhileItIsReadIsRefused) {
  for (const bool between : {false, true})
    for (const Change& change : changes()) {
      const ScratchFolder scratch("corpus");
      const std::string file = scratch.write("a.bin", std::string(1u << 20, '\1')).string();
      const auto shards = TokenShards::of_words({file});
      ASSERT_TRUE(shards);
      bool changed = false;
      const auto act = [&] {
        if (!std::exchange(changed, true)) change.act(file);
      };
      if (between) act();
      const std::string said =
          message_of<DataError>([&] { shards->read(65536, "", [&](std::span<const Token>) { act(); }); });
      EXPECT_EQ(said.find(file + ": "), 0u) << change.said << ": " << said;
      EXPECT_TRUE(said.find(change.said) != std::string::npos || said.find("no such") != std::string::npos ||
                  said.find("it was cut short while it was read") != std::string::npos)
          << change.said << ": " << said;
    }
}

TEST(FileKind, IsToldByTheEndingsInAnyCase) {
  const auto is = [](const char* name, Contents contents, Packing packing) {
    const FileKind kind = file_kind(name);
    EXPECT_TRUE(kind.contents == contents && kind.packing == packing) << name;
  };
  is("a/b.txt", Contents::text, Packing::none);
  is("b.TXT.GZ", Contents::text, Packing::gzip);
  is("b.Jsonl.zst", Contents::json_lines, Packing::zstd);
  is("B.JSONL", Contents::json_lines, Packing::none);
  is("B.BIN", Contents::tokens, Packing::none);
  is("b.bin.gz", Contents::tokens, Packing::gzip);
  is("b.bin.Zst", Contents::tokens, Packing::zstd);
  for (const char* name : {"b", ".txt", "b.txt.bak", "txt", "b.h5", "b.txt~", ""})
    is(name, Contents::unknown, Packing::none);
  is("b.gz", Contents::unknown, Packing::gzip);
}

}  // namespace
}  // namespace dekoder
