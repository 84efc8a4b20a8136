// SPDX-License-Identifier: Apache-2.0
#include "data/export_shards.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "base/error.hpp"
#include "data/reading_progress.hpp"
#include "io/files/durable_file.hpp"
#include "io/files/file_kind.hpp"
#include "io/files/input_file.hpp"
#include "io/files/xxh64.hpp"

namespace dekoder {

namespace {

namespace fs = std::filesystem;

struct PlannedShard {
  fs::path path;
  std::uint64_t first, tokens;
  std::uint64_t bytes(const ShardFormat& format) const {
    return format.header_bytes() + tokens * format.token_bytes;
  }
};

std::vector<PlannedShard> plan_of(const TokenDataset& data, const ShardExport& wish) {
  const TokenFileHeader& header = data.header();
  std::vector<PlannedShard> plan;
  if (wish.as_nanogpt) {
    plan.push_back({wish.folder / "train.bin", 0, header.training_tokens});
    if (header.validation_tokens() > 0)
      plan.push_back({wish.folder / "val.bin", header.training_tokens, header.validation_tokens()});
    return plan;
  }
  const auto shards_of = [&](std::uint64_t tokens) {
    return tokens / wish.shard_tokens + (tokens % wish.shard_tokens != 0);
  };
  constexpr std::uint64_t most = 10'000;
  if (const auto shards = shards_of(header.validation_tokens()) + shards_of(header.training_tokens); shards > most)
    throw ConfigError("--shard-tokens {} makes {} shards of {}; expected at most {}: raise it", wish.shard_tokens,
                      shards, data.path().string(), most);
  const auto add_part = [&](const char* part, std::uint64_t first, std::uint64_t end) {
    for (; first < end; first += wish.shard_tokens) {
      const std::string name = fmt::format("{}_{}_{:06}.bin", data.path().stem().string(), part, plan.size());
      plan.push_back({wish.folder / name, first, std::min(wish.shard_tokens, end - first)});
    }
  };
  add_part("val", header.training_tokens, header.tokens);
  add_part("train", 0, header.training_tokens);
  return plan;
}

const ShardFormat& format_of(const TokenDataset& data, const ShardExport& wish) {
  const bool wide = data.vocabulary() > 65536;
  if (wide && wish.as_nanogpt)
    throw ConfigError(
        "--shard-format nanogpt: the vocabulary of {}, {}, has ids above 65535, the most that its tokens of 2 "
        "bytes hold; expected --shard-format llm.c",
        data.path().string(), data.vocabulary());
  return wish.as_nanogpt ? nanogpt : wide ? llm_c_llama3 : llm_c_gpt2;
}

/// The folder of an export; removed again where it was made for one that failed, and is empty.
class ShardFolder {
 public:
  explicit ShardFolder(const fs::path& folder) : folder_(folder) {
    const std::string name = folder.string();
    if (const std::string obstacle = folder_obstacle(folder); !obstacle.empty())
      throw DataError("{}: {}, expected a folder for shards, or none yet; name another one with --shards", name,
                      obstacle);
    const fs::path target = link_target(folder);
    std::error_code failure;
    if (fs::create_directory(target, failure)) {
      made_ = target;
      sync_folder(target.parent_path());
    }
    if (failure)
      throw DataError("{}: cannot be made: {}; name a folder with --shards that is in one that is there", name,
                      failure.message());
  }
  ~ShardFolder() {
    std::error_code ignored;
    if (!made_.empty()) fs::remove(made_, ignored);  // only if it is empty
  }
  ShardFolder(const ShardFolder&) = delete;

  /// Throws where something is in the way that can be told from its name or size.
  void require_no_others(const std::vector<PlannedShard>& plan, const ShardFormat& format) const {
    std::error_code failure;
    std::unordered_map<std::string, std::uint64_t> bytes_of;
    for (const PlannedShard& shard : plan) bytes_of.emplace(shard.path.filename().string(), shard.bytes(format));
    for (const fs::path& entry : folder_entries(folder_, failure)) {
      if (!file_kind(entry).is_shard()) continue;
      const auto planned = bytes_of.find(entry.filename().string());
      std::error_code ignored;
      if (planned == bytes_of.end() || fs::file_size(entry, ignored) != planned->second) throw_other(entry);
    }
    if (failure) throw_read_error(folder_.string(), failure.value(), "cannot be listed");
  }
  [[noreturn]] static void throw_other(const fs::path& file) {
    throw DataError(
        "{}: is there already and is none of the shards to be written; remove it, or name another folder",
        file.string());
  }

 private:
  fs::path folder_, made_;
};

std::uint64_t digest_of(const fs::path& path) {
  InputFile file(path, "token shard");
  Xxh64 digest;
  std::vector<char> piece(std::size_t{1} << 18);
  for (std::size_t got = file.read(piece); got > 0; got = file.read(piece))
    digest.update(std::string_view(piece.data(), got));
  return digest.digest();
}

/// A shard in the making.
class ShardFile {
 public:
  explicit ShardFile(const fs::path& output) : pending_(output, "shard", 0, PendingFile::LeftOvers::keep) {
    descriptor_ = ::open(pending_.temporary().c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail(errno);
  }
  ~ShardFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  ShardFile(const ShardFile&) = delete;

  void write(std::string_view bytes) {
    digest_.update(bytes);
    if (const int error = write_whole(descriptor_, bytes)) fail(error);
  }
  void close() {
    if (::close(std::exchange(descriptor_, -1)) != 0) fail(errno);
  }
  /// Whether the target is there, with the same bytes; throws where it has others.
  bool is_there() const {
    std::error_code ignored;
    if (!fs::exists(pending_.target(), ignored)) return false;
    if (digest_of(pending_.target()) != digest_.digest()) ShardFolder::throw_other(pending_.target());
    return true;
  }
  void settle() {
    pending_.settle([this](const fs::path& file) {
      if (digest_of(file) != digest_.digest()) throw DataError("{}: its digest does not match", file.string());
    });
  }
  void take_name() { pending_.take_name(); }

 private:
  [[noreturn]] void fail(int error) const {
    throw DataError("{}: cannot be written: {}; {}", pending_.target().string(), std::strerror(error),
                    write_remedy(error));
  }

  PendingFile pending_;
  int descriptor_ = -1;
  Xxh64 digest_;
};

template <class Stored, class Written>
void write_tokens(const TokenDataset& data, const PlannedShard& shard, ShardFile& file, Written&& written) {
  const std::uint64_t block = data.header().block_tokens;
  std::vector<Token> tokens;
  std::vector<Stored> stored;
  for (std::uint64_t done = 0; done < shard.tokens; done += tokens.size()) {
    tokens.resize(std::min(block - (shard.first + done) % block, shard.tokens - done));
    data.read(shard.first + done, tokens);
    stored.assign(tokens.begin(), tokens.end());
    file.write({reinterpret_cast<const char*>(stored.data()), stored.size() * sizeof(Stored)});
    written(stored.size() * sizeof(Stored));
  }
}

}  // namespace

ExportedShards export_shards(const TokenDataset& data, const ShardExport& wish) {
  const ShardFormat& format = format_of(data, wish);
  const std::vector<PlannedShard> plan = plan_of(data, wish);
  const ShardFolder folder(wish.folder);
  folder.require_no_others(plan, format);
  std::uint64_t bytes = 0, done = 0;
  for (const PlannedShard& shard : plan) bytes += shard.bytes(format);
  remove_left_over_files(wish.folder);
  require_space(wish.folder, bytes);
  ReadingProgress progress("shards", bytes);
  ExportedShards exported{&format, {}};
  std::vector<std::unique_ptr<ShardFile>> files;
  for (const PlannedShard& shard : plan) {
    auto file = std::make_unique<ShardFile>(shard.path);
    file->write(format.header(static_cast<std::uint32_t>(shard.tokens)));
    done += format.header_bytes();
    const auto written = [&](std::size_t more) { progress.show(done += more); };
    format.token_bytes == 2 ? write_tokens<std::uint16_t>(data, shard, *file, written)
                            : write_tokens<std::uint32_t>(data, shard, *file, written);
    file->close();
    exported.files.push_back(shard.path);
    if (file->is_there())
      ++exported.unchanged;
    else
      files.push_back(std::move(file));
  }
  for (const auto& file : files) file->settle();
  // The last one first: what a kill leaves lacks shards at its beginning or in its middle, which its numbers tell.
  std::rotate(files.begin(), files.end() - (files.empty() ? 0 : 1), files.end());
  for (const auto& file : files) file->take_name();
  sync_folder(wish.folder);
  return exported;
}

}  // namespace dekoder
